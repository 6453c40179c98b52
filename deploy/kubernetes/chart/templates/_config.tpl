{{/* The configuration of the proxy: every pod of the instances is a backend, found or by its own name. */}}
{{- define "chainlit-proxy.config" -}}
{{- $domain := .Values.clusterDomain | trimSuffix "." -}}
{{- $backends := list -}}
{{- range $number := until (int .Values.chat.replicas) -}}
{{- $name := printf "chat-%d" $number -}}
{{- $backends = append $backends (dict "name" $name "url" (printf "http://%s.chat.${NAMESPACE}.svc.%s.:8000" $name $domain)) -}}
{{- end -}}
{{- $config := dict
  "listen" "0.0.0.0:8000"
  "admin" (dict "listen" "0.0.0.0:9901" "token" "${ADMIN_TOKEN}" "hook_token" "${HOOK_TOKEN}")
  "affinity" (dict "secret" "${AFFINITY_SECRET}")
  "health" (dict "path" .Values.chat.healthPath)
  "sessions" (dict "shared" true)
  "timeouts" (dict "farewell" 10)
  "log" (dict "format" "json")
  "forwarded" (dict "trusted" .Values.proxy.trusted)
-}}
{{- if .Values.proxy.discovery.enabled -}}
{{- $_ := set $config "discovery" (dict "kubernetes" (dict "service" "chat" "port" "http")) -}}
{{- else -}}
{{- $_ := set $config "backends" $backends -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.proxy.config)) -}}
{{- end -}}
