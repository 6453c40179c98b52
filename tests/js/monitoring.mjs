// Reads an object for the Prometheus operator, and ends with 1 and a reason if the operator would refuse it.
import { readFileSync } from "node:fs";
import * as operator from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

try {
  const given = JSON.parse(readFileSync(0, "utf8"));
  new operator[given.kind](given).validate();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
