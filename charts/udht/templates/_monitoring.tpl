{{/* The head of an object of the Prometheus Operator: called with root, and labels by which a Prometheus may choose it. */}}
{{- define "udht.monitoringMetadata" -}}
name: {{ include "udht.fullname" .root }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "udht.labels" .root | nindent 2 }}
  app.kubernetes.io/component: monitoring
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* rules/alerts.yaml with the thresholds, the labels of the release, and what else the values say. */}}
{{- define "udht.rules" -}}
{{- $rules := .Values.monitoring.rules }}
{{- $text := .Files.Get "rules/alerts.yaml" }}
{{- $thresholds := mustMergeOverwrite (dict) $rules.thresholds }}
{{- if kindIs "invalid" $thresholds.certificateHours }}
{{- $_ := set $thresholds "certificateHours" (eq .Values.tls.mode "auto" | ternary 1 168) }}
{{- end }}
{{- range $name, $value := $thresholds }}
{{- $text = replace (printf "$(%s)" $name) (toString $value) $text }}
{{- end }}
{{- $release := printf "namespace=%q,release=%q" .Release.Namespace .Release.Name }}
{{- $text = replace "$(release)" ($rules.anyRelease | ternary "" $release) $text }}
{{- $groups := list }}
{{- $known := list }}
{{- range (fromYaml $text).groups }}
{{- $kept := list }}
{{- range .rules }}
{{- $known = append $known .alert }}
{{- if not (has .alert $rules.disabled) }}
{{- $_ := set .annotations "runbook_url" (printf "%s#%s" $rules.runbook (lower .alert)) }}
{{- $_ := set . "labels" (mustMergeOverwrite (dict) .labels $rules.alertLabels) }}
{{- $kept = append $kept . }}
{{- end }}
{{- end }}
{{- $groups = append $groups (dict "name" (eq $rules.anyRelease true | ternary .name (printf "%s-%s-%s" .name $.Release.Namespace $.Release.Name)) "rules" $kept) }}
{{- end }}
{{- range $rules.disabled }}
{{- if not (has . $known) }}
{{- fail (printf "monitoring.rules.disabled names %s, and there is no such alert; there are %s." . (join ", " $known)) }}
{{- end }}
{{- end }}
{{- toYaml (dict "groups" $groups) }}
{{- end }}
