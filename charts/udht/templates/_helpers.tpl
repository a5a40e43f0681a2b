{{/* Names and labels that all templates share. */}}

{{- define "udht.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52 characters, as a StatefulSet's name and the 11 characters behind it become a label of 63. */}}
{{- define "udht.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" (.Release.Name | trunc (sub 51 (len .Chart.Name) | int) | trimSuffix "-") .Chart.Name }}
{{- end }}
{{- end }}

{{- define "udht.authority" -}}
{{ include "udht.fullname" . }}-authority
{{- end }}

{{/* The same for ever: selectors cannot be changed. */}}
{{- define "udht.releaseLabels" -}}
app.kubernetes.io/name: {{ include "udht.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "udht.peerLabels" -}}
{{ include "udht.releaseLabels" . }}
app.kubernetes.io/component: peer
{{- end }}

{{- define "udht.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "udht.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The head of an object: name, namespace, labels, annotations. Called with root, name, and perhaps component and
annotations. */}}
{{- define "udht.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "udht.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations (default (dict) .annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "udht.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "udht.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image of our own: called with root and name. */}}
{{- define "udht.image" -}}
{{- $image := .root.Values.image }}
{{- with $image.registry }}{{ . }}/{{ end }}{{ .name }}:{{ default .root.Chart.AppVersion $image.tag }}
{{- end }}

{{/* Whether a volume belongs to each pod, and whether what is stored outlives the release. */}}
{{- define "udht.hasVolume" -}}
{{- if ne .Values.store "external" }}true{{ end }}
{{- end }}
{{- define "udht.hasClaims" -}}
{{- if and (include "udht.hasVolume" .) .Values.persistence.enabled }}true{{ end }}
{{- end }}
{{- define "udht.outlives" -}}
{{- if eq .Values.store "external" }}true
{{- else if and (include "udht.hasClaims" .) (eq .Values.persistence.retention.whenDeleted "Retain") }}true
{{- end }}
{{- end }}

{{/* Whether the NetworkPolicy says whom the pods may reach. */}}
{{- define "udht.isRestricted" -}}
{{- $policy := .Values.networkPolicy }}
{{- if and $policy.enabled (eq $policy.egress.mode "auto" | ternary (empty .Values.containers) (eq $policy.egress.mode "restricted")) }}true{{ end }}
{{- end }}

{{/* The port of an external Redis. */}}
{{- define "udht.externalPort" -}}
{{- $named := regexFind ":[0-9]+([/?]|$)" (trimPrefix "redis:" (trimPrefix "rediss:" .Values.external.url)) }}
{{- .Values.external.port | default (regexFind "[0-9]+" $named) | default 6379 }}
{{- end }}
