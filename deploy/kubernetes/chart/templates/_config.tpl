{{/* The configuration of the proxy: every pod of the instances is a backend, by its own name. */}}
{{- define "chainlit-proxy.config" -}}
{{- $backends := list -}}
{{- range $number := until (int .Values.chat.replicas) -}}
{{- $name := printf "chat-%d" $number -}}
{{- $backends = append $backends (dict "name" $name "url" (printf "http://%s.chat:8000" $name)) -}}
{{- end -}}
{{- $config := dict
  "listen" "0.0.0.0:8000"
  "admin" (dict "listen" "0.0.0.0:9901" "token" "${ADMIN_TOKEN}")
  "affinity" (dict "secret" "${AFFINITY_SECRET}")
  "backends" $backends
  "health" (dict "path" .Values.chat.healthPath)
  "sessions" (dict "shared" true)
  "log" (dict "format" "json")
  "forwarded" (dict "trusted" .Values.proxy.trusted)
-}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.proxy.config)) -}}
{{- end -}}
