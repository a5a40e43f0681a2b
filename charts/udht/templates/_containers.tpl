{{/* The containers of a pod, in the order in which they start. Each is called with the root. */}}

{{- define "udht.containerSecurity" -}}
{{- with .Values.runAs.user }}
runAsUser: {{ . }}
{{- end }}
{{- with .Values.runAs.group }}
runAsGroup: {{ . }}
{{- end }}
runAsNonRoot: true
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
privileged: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "udht.redis" -}}
{{- $fsync := .Values.redis.fsync | default (ternary "always" "never" .Values.persistence.enabled) -}}
name: redis
image: {{ .Values.redis.image.repository }}:{{ .Values.redis.image.tag }}
imagePullPolicy: {{ .Values.redis.image.pullPolicy }}
command: [redis-server]
args:
  # Nobody outside the pod reaches it, and so it has no password: whoever shares the pod's loopback has the manager too.
  - --bind
  - 127.0.0.1
  - --port
  - "6379"
  - --dir
  - /data
  # What was answered has been written, and is there after kill -9; snapshots beside it would only cost.
  - --appendonly
  - "yes"
  - --appendfsync
  - {{ eq $fsync "always" | ternary "always" "no" | quote }}
  - --save
  - ""
  # An evicted key would be a lost peer.
  - --maxmemory-policy
  - noeviction
  - --databases
  - "1"
  {{- range $name, $value := .Values.redis.settings }}
  - --{{ $name }}
  {{- range splitList " " (toString $value) }}
  - {{ . | quote }}
  {{- end }}
  {{- end }}
startupProbe:
  # Fails while the append-only file is being read.
  exec:
    command: [redis-cli, -e, -h, 127.0.0.1, -p, "6379", ping]
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: {{ .Values.manager.startupSeconds }}
livenessProbe:
  exec:
    command: [redis-cli, -e, -h, 127.0.0.1, -p, "6379", ping]
  periodSeconds: 60
  timeoutSeconds: 10
  failureThreshold: 3
resources:
  {{- toYaml .Values.redis.resources | nindent 2 }}
securityContext:
  {{- include "udht.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: data
    mountPath: /data
{{- end }}

{{/* What tables of different releases never share, by a namespace that the pod is asked for: so the manifests are good for any. */}}
{{- define "udht.clusterEnv" -}}
- name: UDHT_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: UDHT_CLUSTER
  value: $(UDHT_NAMESPACE)/{{ include "udht.fullname" . }}
{{- end }}

{{- define "udht.managerOwnEnv" -}}
{{- $external := .Values.external -}}
- name: UDHT_LISTEN
  value: 127.0.0.1:3002
{{ include "udht.clusterEnv" . }}
{{- if eq .Values.store "redis" }}
- name: UDHT_STORE
  value: redis://127.0.0.1:6379
{{- else if eq .Values.store "embedded" }}
- name: UDHT_STORE
  value: embedded:/data/udht.redb
{{- else }}
{{- $files := "" }}
{{- if $external.tls.secretName }}
{{- $files = "?ca=/redis-tls/ca.crt" }}
{{- if $external.tls.clientCertificate }}
{{- $files = printf "%s&cert=/redis-tls/tls.crt&key=/redis-tls/tls.key" $files }}
{{- end }}
{{- end }}
{{- if $external.urlSecret.name }}
- name: REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ $external.urlSecret.name }}
      key: {{ $external.urlSecret.key }}
- name: UDHT_STORE
  value: $(REDIS_URL){{ $files }}
{{- else }}
- name: UDHT_STORE
  value: {{ printf "%s%s" $external.url $files | quote }}
{{- end }}
{{- end }}
- name: UDHT_STORAGE
  value: {{ or (eq (include "udht.hasClaims" .) "true") (eq .Values.store "external") | ternary "volume" "pod" }}
- name: UDHT_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: UDHT_POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
- name: UDHT_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: UDHT_PEER_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: UDHT_PEER_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- with .Values.peer.ports }}
- name: UDHT_PEER_PORT
  value: {{ include "udht.pairs" . | quote }}
{{- end }}
{{- with .Values.peer.labels }}
- name: UDHT_PEER_LABEL
  value: {{ include "udht.pairs" . | quote }}
{{- end }}
- name: UDHT_MAX_RECORDS
  value: {{ .Values.manager.maxRecords | int64 | quote }}
- name: UDHT_MAX_RECORD_BYTES
  value: {{ .Values.manager.maxRecordBytes | int64 | quote }}
- name: UDHT_MAX_CLOCK_DRIFT
  value: {{ .Values.manager.maxClockDrift | quote }}
- name: UDHT_TOMBSTONE_MAX_AGE
  value: {{ .Values.manager.tombstoneMaxAge | quote }}
- name: UDHT_FLOOR_INTERVAL
  value: {{ .Values.manager.floorInterval | quote }}
- name: UDHT_LOG
  value: {{ .Values.manager.log | quote }}
{{- end }}

{{- define "udht.manager" -}}
{{- $external := .Values.external -}}
name: manager
image: {{ include "udht.image" (dict "root" . "name" .Values.image.manager) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - serve
  {{- range .Values.manager.args }}
  - {{ . | quote }}
  {{- end }}
env:
  {{- include "udht.managerOwnEnv" . | nindent 2 }}
  {{- with .Values.manager.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
startupProbe:
  exec:
    command: [/udht-manager, healthcheck, --ready]
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: {{ .Values.manager.startupSeconds }}
# Whether it is ready, sync asks it at each of its own readiness probes: a request, where this would start a program.
livenessProbe:
  exec:
    command: [/udht-manager, healthcheck]
  periodSeconds: 30
  timeoutSeconds: 5
  failureThreshold: 3
resources:
  {{- toYaml .Values.manager.resources | nindent 2 }}
securityContext:
  {{- include "udht.containerSecurity" . | nindent 2 }}
{{- if eq .Values.store "embedded" }}
volumeMounts:
  - name: data
    mountPath: /data
{{- else if and (eq .Values.store "external") $external.tls.secretName }}
volumeMounts:
  - name: redis-tls
    mountPath: /redis-tls
    readOnly: true
{{- end }}
{{- end }}

{{/* What sync and the test's syncs are told alike. */}}
{{- define "udht.syncEnv" -}}
{{ include "udht.clusterEnv" . }}
- name: UDHT_SERVICE
  value: {{ include "udht.fullname" . }}
- name: UDHT_POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
- name: UDHT_TLS
  value: {{ eq .Values.tls.mode "secret" | ternary "files:/tls" .Values.tls.mode | quote }}
{{- if eq .Values.tls.mode "auto" }}
- name: UDHT_AUTHORITY_SECRET
  value: {{ include "udht.authority" . }}
{{- end }}
- name: UDHT_LOG
  value: {{ .Values.sync.log | quote }}
{{- end }}

{{- define "udht.syncMounts" -}}
- name: token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- if eq .Values.tls.mode "secret" }}
- name: tls
  mountPath: /tls
  readOnly: true
{{- end }}
{{- end }}

{{/* Only sync has the token: no other container of the pod, and none of the user's. */}}
{{- define "udht.syncVolumes" -}}
- name: token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items: [{path: namespace, fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}]
{{- if eq .Values.tls.mode "secret" }}
- name: tls
  secret:
    secretName: {{ .Values.tls.secretName }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
{{- end }}
{{- end }}

{{- define "udht.syncOwnEnv" -}}
- name: UDHT_LISTEN
  value: {{ printf "%s:3003" .Values.sync.listenAddress | quote }}
- name: UDHT_OPS_LISTEN
  value: {{ printf "%s:3004" .Values.sync.listenAddress | quote }}
- name: UDHT_MANAGER
  value: http://127.0.0.1:3002
{{- include "udht.syncEnv" . | nindent 0 }}
- name: UDHT_DISCOVERY
  value: kubernetes
- name: UDHT_SYNC_INTERVAL
  value: {{ .Values.sync.interval | quote }}
- name: UDHT_PUSH_DELAY
  value: {{ .Values.sync.pushDelay | quote }}
- name: UDHT_PUSH_FANOUT
  value: {{ .Values.sync.pushFanout | int64 | quote }}
- name: UDHT_GONE_AFTER
  value: {{ .Values.sync.goneAfter | quote }}
- name: UDHT_MAX_CLOCK_DRIFT
  value: {{ .Values.manager.maxClockDrift | quote }}
{{- if eq .Values.tls.mode "auto" }}
- name: UDHT_LEAF_LIFETIME
  value: {{ .Values.tls.leafLifetime | quote }}
- name: UDHT_ROTATION_OVERLAP
  value: {{ .Values.tls.rotationOverlap | quote }}
{{- end }}
{{- end }}

{{- define "udht.sync" -}}
name: sync
image: {{ include "udht.image" (dict "root" . "name" .Values.image.sync) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - serve
  {{- range .Values.sync.args }}
  - {{ . | quote }}
  {{- end }}
env:
  {{- include "udht.syncOwnEnv" . | nindent 2 }}
  {{- with .Values.sync.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - name: exchange
    containerPort: 3003
  - name: ops
    containerPort: 3004
lifecycle:
  preStop:
    exec:
      command: [/udht-sync, handover]
startupProbe:
  httpGet:
    path: /readyz
    port: ops
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: {{ .Values.sync.startupSeconds }}
readinessProbe:
  httpGet:
    path: /readyz
    port: ops
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  httpGet:
    path: /livez
    port: ops
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 3
resources:
  {{- toYaml .Values.sync.resources | nindent 2 }}
securityContext:
  {{- include "udht.containerSecurity" . | nindent 2 }}
volumeMounts:
  {{- include "udht.syncMounts" . | nindent 2 }}
{{- end }}

{{/* A map as KEY=VALUE,KEY=VALUE. */}}
{{- define "udht.pairs" -}}
{{- $pairs := list }}
{{- range $key, $value := . }}
{{- $pairs = append $pairs (printf "%s=%s" $key (toString $value)) }}
{{- end }}
{{- join "," $pairs }}
{{- end }}
