{{/* What selects the pods of one of the two, of this release and no other: `list $ "chat"`. */}}
{{- define "chainlit-proxy.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
{{- end -}}

{{/* The labels of an object, and more of them: `list $ "chat"`, `list $ "chat" $more`. */}}
{{- define "chainlit-proxy.labels" -}}
{{- $root := index . 0 -}}
{{- $own := include "chainlit-proxy.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "chainlit-proxy" -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_")) -}}
{{- $more := dict -}}
{{- if gt (len .) 2 }}{{ $more = index . 2 }}{{ end -}}
{{- toYaml (merge $own $more $root.Values.labels) -}}
{{- end -}}

{{/* What it says of the number of pods, which an autoscaler may have in its hands: `list $ "StatefulSet" "chat" scaled replicas`. */}}
{{- define "chainlit-proxy.replicas" -}}
{{- if not (index . 3) -}}
replicas: {{ index . 4 }}
{{- else if $running := lookup "apps/v1" (index . 1) (index . 0).Release.Namespace (index . 2) -}}
{{- if include "chainlit-proxy.numbered" $running -}}
# As many as there are: without it a release that begins to scale by itself would fall to one for a moment.
replicas: {{ $running.spec.replicas }}
{{- end -}}
{{- end }}
{{- end -}}

{{/* Whether a workload would lose its number of pods if the release no longer told one. It would if that is Helm's: where
Helm applies on the server's side, it says so there. A number that an autoscaler has set since is not told: a rollback to
the release would be a conflict. */}}
{{- define "chainlit-proxy.numbered" -}}
{{- $numbered := "yes" -}}
{{- range dig "metadata" "managedFields" list . -}}
{{- $fields := .fieldsV1 | default dict -}}
{{- if and (eq .operation "Apply") (hasKey (dig "f:metadata" "f:annotations" dict $fields) "f:meta.helm.sh/release-name") -}}
{{- $numbered = hasKey (dig "f:spec" dict $fields) "f:replicas" | ternary "yes" "" -}}
{{- end -}}
{{- end -}}
{{- $numbered -}}
{{- end -}}

{{/* Where an object for Prometheus or Grafana goes, and its labels: `list $ "chat" .Values.serviceMonitor`. */}}
{{- define "chainlit-proxy.monitoring" -}}
{{- with (index . 2).namespace }}namespace: {{ . | quote }}
{{ end -}}
labels: {{- include "chainlit-proxy.labels" (list (index . 0) (index . 1) (index . 2).labels) | nindent 2 }}
{{- end -}}

{{/* The variables of a container: its own, as a YAML list, but for those that the values set: `list $own $more`. */}}
{{- define "chainlit-proxy.env" -}}
{{- $more := index . 1 -}}
{{- $names := list -}}
{{- range $more }}{{ $names = append $names .name }}{{ end -}}
{{- if ne (len $names) (len (uniq $names)) }}{{ fail (printf "env: a variable is there twice: %s" (join ", " $names)) }}{{ end -}}
{{- $all := list -}}
{{- range (fromYamlArray (index . 0)) }}{{ if not (has .name $names) }}{{ $all = append $all . }}{{ end }}{{ end -}}
{{- toYaml (concat $all $more) -}}
{{- end -}}

{{/* Where the pods of one of the two are placed: `list $ "chat" .Values.chat`. */}}
{{- define "chainlit-proxy.placing" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- range uniq . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "chainlit-proxy.selector" (list $root (index $ 1)) | nindent 8 }}
{{- end }}
{{- end -}}
