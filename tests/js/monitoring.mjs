// Reads a ServiceMonitor from its input, and ends with 1 and a reason if the Prometheus operator would refuse it.
import { readFileSync } from "node:fs";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

try {
  new ServiceMonitor(JSON.parse(readFileSync(0, "utf8"))).validate();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
