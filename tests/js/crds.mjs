// Reads an object of the Prometheus operator or the Gateway API, and ends with 1 and a reason if its schema refuses it.
import { readFileSync } from "node:fs";
import * as gateway from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import * as operator from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

try {
  const given = JSON.parse(readFileSync(0, "utf8"));
  const models = given.apiVersion.startsWith("gateway.") ? gateway : operator;
  new models[given.kind](given).validate();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
