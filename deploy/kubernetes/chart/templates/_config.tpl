{{/* Whether there are several proxies, which then share a directory of sessions. */}}
{{- define "chainlit-proxy.several" -}}
{{- if or .Values.proxy.autoscaling.enabled (gt (int .Values.proxy.replicas) 1) }}yes{{ end -}}
{{- end -}}

{{/* Whether they share it in Redis. */}}
{{- define "chainlit-proxy.directory" -}}
{{- if and (include "chainlit-proxy.several" .) .Values.proxy.directory.enabled }}yes{{ end -}}
{{- end -}}

{{/* How long a pod of the proxy may take to end: its preStop, its timeouts and some air. */}}
{{- define "chainlit-proxy.grace" -}}
{{- $timeouts := (include "chainlit-proxy.config" . | fromYaml).timeouts -}}
{{- $shutdown := include "chainlit-proxy.seconds" ($timeouts.shutdown | default 0) -}}
{{- $handOver := include "chainlit-proxy.seconds" ($timeouts.hand_over | default 0) -}}
{{- add 15 (ceil (addf $shutdown $handOver)) -}}
{{- end -}}

{{/* A duration as the proxy reads it: a number of seconds, or numbers with units such as 1m30s. */}}
{{- define "chainlit-proxy.seconds" -}}
{{- if kindIs "string" . -}}
{{- if not (regexMatch "^([0-9]+([.][0-9]+)? ?(ms|[dhms]) ?)+$" .) -}}
{{- fail (printf "proxy.config.timeouts must have numbers of seconds, without quotes, or durations such as 1m30s, and no variables (got %q): how long Kubernetes waits for a pod of the proxy follows from them" .) -}}
{{- end -}}
{{- $units := dict "d" 86400 "h" 3600 "m" 60 "s" 1 "ms" 0.001 -}}
{{- $total := 0.0 -}}
{{- range regexFindAll "[0-9.]+ ?(ms|[dhms])" . -1 -}}
{{- $total = addf $total (mulf (regexFind "^[0-9.]+" .) (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- $total -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* Whether an autoscaler has the number of instances. */}}
{{- define "chainlit-proxy.chat.scaled" -}}
{{- if or .Values.chat.autoscaling.hpa.enabled .Values.chat.autoscaling.keda.enabled }}yes{{ end -}}
{{- end -}}

{{/* What the values add to pods is not there already, which Kubernetes would refuse, or take one of the two:
`list "chat" .Values.chat volumes mounts annotations`, the last three of the chart. */}}
{{- define "chainlit-proxy.apart" -}}
{{- $values := index . 1 -}}
{{- $volumes := index . 2 -}}
{{- range $values.volumes }}{{ $volumes = append $volumes .name }}{{ end -}}
{{- $mounts := index . 3 -}}
{{- range $values.volumeMounts }}{{ $mounts = append $mounts (.mountPath | default "" | toString | clean) }}{{ end -}}
{{- $labels := concat (list "app.kubernetes.io/name" "app.kubernetes.io/instance") (keys ($values.podLabels | default dict) | sortAlpha) -}}
{{- $annotations := concat (index . 4) (keys ($values.podAnnotations | default dict) | sortAlpha) -}}
{{- range $name, $there := dict "volumes" $volumes "volumeMounts" $mounts "podLabels" $labels "podAnnotations" $annotations -}}
{{- if ne (len $there) (len (uniq $there)) -}}
{{- fail (printf "%s.%s: one is there twice, the chart's own among them: %s" (index $ 0) $name (join ", " $there)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Takes out of a map what is nothing, so that it does not take the place of the chart's own. */}}
{{- define "chainlit-proxy.pruned" -}}
{{- range $key, $value := . -}}
{{- if kindIs "invalid" $value }}{{ $_ := unset $ $key -}}
{{- else if kindIs "map" $value }}{{ include "chainlit-proxy.pruned" $value }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Values that nobody can guess, and those that contradict each other. */}}
{{- define "chainlit-proxy.checked" -}}
{{- if kindIs "invalid" .Values.proxy.trusted -}}
{{- fail "proxy.trusted has to be chosen: the networks that connections of your ingress controller or load balancer come from, such as [10.244.0.0/16]; [] if clients connect without one. Whoever is in it is believed whose request it is; if the controller is not, all users are one client. See docs/deployment/kubernetes.md" -}}
{{- end -}}
{{- include "chainlit-proxy.apart" (list "chat" .Values.chat (list "hooks" "tmp") (list "/etc/chainlit-hook" "/tmp") list) -}}
{{- include "chainlit-proxy.apart" (list "proxy" .Values.proxy (list "config") (list "/etc/chainlit-proxy") (list "checksum/config")) -}}
{{- range list "listen" "admin" "backends" "discovery" -}}
{{- if hasKey $.Values.proxy.config . -}}
{{- fail (printf "proxy.config.%s is the chart's: its ports, probes, policies and hooks are made for it" .) -}}
{{- end -}}
{{- end -}}
{{- if lt (int .Values.proxy.autoscaling.maxReplicas) (int .Values.proxy.autoscaling.minReplicas) -}}
{{- fail "proxy.autoscaling.maxReplicas is less than minReplicas" -}}
{{- end -}}
{{- $service := .Values.proxy.service -}}
{{- if and $service.externalTrafficPolicy (eq $service.type "ClusterIP") -}}
{{- fail "proxy.service.externalTrafficPolicy is for the types NodePort and LoadBalancer: a ClusterIP has no traffic from outside" -}}
{{- end -}}
{{- if and $service.loadBalancerSourceRanges (ne $service.type "LoadBalancer") -}}
{{- fail "proxy.service.loadBalancerSourceRanges is for the type LoadBalancer: with another, nothing keeps clients out" -}}
{{- end -}}
{{- $scaling := .Values.chat.autoscaling -}}
{{- if lt (int $scaling.maxReplicas) (int $scaling.minReplicas) -}}
{{- fail "chat.autoscaling.maxReplicas is less than minReplicas" -}}
{{- end -}}
{{- if and $scaling.hpa.enabled $scaling.keda.enabled -}}
{{- fail "chat.autoscaling.hpa and chat.autoscaling.keda are both enabled: one of them may set the number of pods" -}}
{{- end -}}
{{- if and (include "chainlit-proxy.chat.scaled" .) (not .Values.proxy.discovery.enabled) -}}
{{- fail "chat.autoscaling needs proxy.discovery.enabled: the proxies would not know the pods that come, nor those that drain" -}}
{{- end -}}
{{- if and $scaling.keda.enabled (not $scaling.keda.server) -}}
{{- fail "chat.autoscaling.keda.server has to be chosen: the address of Prometheus, such as http://prometheus-operated.monitoring.svc:9090" -}}
{{- end -}}
{{- $figures := .Values.proxy.config.replicas | default dict -}}
{{- range $name, $least := dict "answers" 1 "sessions" 1 "spare" 0 -}}
{{- if and $scaling.keda.enabled (hasKey $figures $name) -}}
{{- $figure := get $figures $name -}}
{{- if or (kindIs "invalid" $figure) (kindIs "string" $figure) (lt (int $figure) $least) -}}
{{- fail (printf "proxy.config.replicas.%s has to be a whole number, %d or greater: chat.autoscaling.keda asks by it" $name $least) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.proxy.healthSecret (not .Values.chat.healthSecret) -}}
{{- fail "proxy.healthSecret needs chat.healthSecret: pods that do not know the secret are down" -}}
{{- end -}}
{{- $known := .Values.chat.envFrom -}}
{{- range .Values.chat.env }}{{ if eq .name "CHAINLIT_PROXY_HEALTH_SECRET" }}{{ $known = true }}{{ end }}{{ end -}}
{{- if and (dig "health" dict .Values.proxy.config | default dict).secret (not (or .Values.chat.healthSecret $known)) -}}
{{- fail "proxy.config.health.secret needs pods that know it: name its Secret in chat.healthSecret first, then in proxy.healthSecret, which sets this key. See docs/deployment/kubernetes.md" -}}
{{- end -}}
{{- if and .Values.chat.backends (lt (int .Values.chat.backends) (int .Values.chat.replicas)) -}}
{{- fail "chat.backends is less than chat.replicas: the proxies would not know the last pods" -}}
{{- end -}}
{{- if not (or .Values.networkPolicy.enabled .Values.chat.forwardedAllowIps) -}}
{{- fail "chat.forwardedAllowIps has to be chosen without networkPolicy.enabled: the network of the pods, such as 10.244.0.0/16. Whoever is in it can be any client to the app" -}}
{{- end -}}
{{- end -}}

{{/* The configuration of the proxy: every pod of the instances is a backend, found or by its own name. */}}
{{- define "chainlit-proxy.config" -}}
{{- include "chainlit-proxy.checked" . -}}
{{- $domain := .Values.clusterDomain | trimSuffix "." -}}
{{- $backends := list -}}
{{- range $number := until (int (.Values.chat.backends | default .Values.chat.replicas)) -}}
{{- $name := printf "chat-%d" $number -}}
{{- $backends = append $backends (dict "name" $name "url" (printf "http://%s.chat.${NAMESPACE}.svc.%s.:8000" $name $domain)) -}}
{{- end -}}
{{- $affinity := dict "secret" "${AFFINITY_SECRET}" -}}
{{- if include "chainlit-proxy.directory" . -}}
{{- $_ := set $affinity "directory" (dict "redis" "${SESSIONS_URL}") -}}
{{- else if include "chainlit-proxy.several" . -}}
{{- $_ := set $affinity "locate" "always" -}}
{{- end -}}
{{- $config := dict
  "listen" "0.0.0.0:8000"
  "admin" (dict "listen" "0.0.0.0:9901" "token" "${ADMIN_TOKEN}" "hook_token" "${HOOK_TOKEN}")
  "affinity" $affinity
  "health" (dict "path" .Values.chat.healthPath "listen_path" "/.chainlit-proxy/healthz")
  "sessions" (dict "shared" true)
  "timeouts" (dict "farewell" 10 "shutdown" 30)
  "log" (dict "format" "json")
  "forwarded" (dict "trusted" .Values.proxy.trusted)
-}}
{{- if .Values.proxy.healthSecret -}}
{{- $_ := set $config.health "secret" "${HEALTH_SECRET}" -}}
{{- end -}}
{{- if .Values.proxy.discovery.enabled -}}
{{- $_ := set $config "discovery" (dict "kubernetes" (dict "service" "chat" "port" "http")) -}}
{{- else -}}
{{- $_ := set $config "backends" $backends -}}
{{- end -}}
{{- $given := deepCopy .Values.proxy.config -}}
{{- include "chainlit-proxy.pruned" $given -}}
{{- toYaml (mergeOverwrite $config $given) -}}
{{- end -}}
