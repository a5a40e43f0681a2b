{{/* What no schema can say, or not in words: values that do not go together. All that is wrong is told at once. */}}
{{- define "udht.checks" -}}
{{- $wrong := list }}
{{- $external := .Values.external }}
{{- $name := include "udht.fullname" . }}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" $name) }}
{{- $wrong = append $wrong (printf "all that the release is made of would have the name %s, and that of a Service begins with a letter and has no dots: name the release otherwise, or set fullnameOverride." $name) }}
{{- end }}
{{- if and (eq .Values.tls.mode "secret") (not .Values.tls.secretName) }}
{{- $wrong = append $wrong "tls.mode is secret, and tls.secretName names none: it is to be a Secret with ca.crt, tls.crt and tls.key." }}
{{- end }}
{{- if and (ne .Values.tls.mode "secret") .Values.tls.secretName }}
{{- $wrong = append $wrong (printf "tls.secretName is set, and tls.mode is %s: certificates of your own take tls.mode=secret." .Values.tls.mode) }}
{{- end }}
{{- if eq .Values.store "external" }}
{{- if and (not $external.url) (not $external.urlSecret.name) }}
{{- $wrong = append $wrong "store is external, and nothing says where it is: set external.url, or external.urlSecret.name if there is a password in it." }}
{{- end }}
{{- if .Values.persistence.enabled }}
{{- $wrong = append $wrong "store is external, so a pod has nothing to keep: leave persistence.enabled false." }}
{{- end }}
{{- else if or $external.url $external.urlSecret.name }}
{{- $wrong = append $wrong (printf "external says where a Redis is, and store is %s: set store=external to use it." .Values.store) }}
{{- end }}
{{- if and $external.url $external.urlSecret.name }}
{{- $wrong = append $wrong "external.url and external.urlSecret.name are both set: which of them is meant?" }}
{{- end }}
{{- if regexMatch "^rediss?://[^:/@]*@" $external.url }}
{{- $wrong = append $wrong "external.url names a user without a password: put redis://USER:PASSWORD@HOST into a Secret and name that in external.urlSecret." }}
{{- else if contains "@" $external.url }}
{{- $wrong = append $wrong "external.url holds a password, which all would see who may see the pods: put the URL into a Secret and name that in external.urlSecret." }}
{{- end }}
{{- if contains "prefix=" $external.url }}
{{- $wrong = append $wrong "external.url sets a prefix, which all pods would share: leave it out, each pod has one of its own." }}
{{- end }}
{{- if and $external.tls.secretName (contains "?" $external.url) }}
{{- $wrong = append $wrong "external.url has parameters, and with external.tls.secretName the chart adds them: leave them out." }}
{{- end }}
{{- if and $external.tls.secretName (hasPrefix "redis:" $external.url) }}
{{- $wrong = append $wrong "external.tls is set, and external.url begins with redis://: with TLS it is rediss://." }}
{{- end }}
{{- range $name, $ := .Values.redis.settings }}
{{- if has $name (list "bind" "port" "tls-port" "unixsocket" "dir" "appendonly" "appendfsync" "appenddirname" "appendfilename" "save" "maxmemory-policy" "databases" "daemonize" "requirepass" "aclfile" "include" "rename-command") }}
{{- $wrong = append $wrong (printf "redis.settings.%s is for the chart to set: the manager beside it relies on it." $name) }}
{{- else if not (regexMatch "^[a-z][a-z0-9-]*$" $name) }}
{{- $wrong = append $wrong (printf "redis.settings.%s is no name of a setting of redis.conf." $name) }}
{{- end }}
{{- end }}
{{- range $name, $ := .Values.peer.ports }}
{{- if not (regexMatch "^[^,= ]{1,63}$" $name) }}
{{- $wrong = append $wrong (printf "peer.ports has the purpose %q: it is to have 1 to 63 characters, without comma, space and =." $name) }}
{{- end }}
{{- end }}
{{- range $key, $value := .Values.peer.labels }}
{{- if or (eq $key "") (contains "=" $key) (contains "," $key) (contains "," $value) }}
{{- $wrong = append $wrong (printf "peer.labels has %q: %q: a comma parts labels, and = parts a key from its value; set such a label through PUT /v1/identity." $key $value) }}
{{- end }}
{{- end }}
{{- range $kind := list "containers" "initContainers" }}
{{- range index $.Values $kind }}
{{- if has .name (list "redis" "manager" "sync") }}
{{- $wrong = append $wrong (printf "%s has one of the name %s, which is that of a sidecar: choose another." $kind .name) }}
{{- end }}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" .name) }}
{{- $wrong = append $wrong (printf "%s has one of the name %q: it is to have 1 to 63 lower-case letters, digits and hyphens, and a hyphen neither first nor last." $kind .name) }}
{{- end }}
{{- range .ports }}
{{- if has (int .containerPort) (list 3002 3003 3004) }}
{{- $wrong = append $wrong (printf "%s has the port %d, which is that of a sidecar: choose another." $kind (int .containerPort)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.volumes }}
{{- if has .name (list "data" "token" "tls" "redis-tls") }}
{{- $wrong = append $wrong (printf "volumes has one of the name %s, which is the chart's: choose another." .name) }}
{{- end }}
{{- end }}
{{- range $kind, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "persistence.labels" .Values.persistence.labels }}
{{- range $key, $ := $labels }}
{{- if has $key (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component") }}
{{- $wrong = append $wrong (printf "%s has %s, by which the pods are found: the chart sets it (see nameOverride)." $kind $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $key, $image := dict "image.manager" .Values.image.manager "image.sync" .Values.image.sync "redis.image.repository" .Values.redis.image.repository }}
{{- if regexMatch "[:@][^/]*$" $image }}
{{- $wrong = append $wrong (printf "%s is %s, with a tag or digest in it: that is for %s." $key $image (hasPrefix "redis" $key | ternary "redis.image.tag" "image.tag")) }}
{{- end }}
{{- end }}
{{- range $program := list "redis" "manager" "sync" }}
{{- range $kind := list "requests" "limits" }}
{{- range $resource, $quantity := index $.Values $program "resources" $kind }}
{{- if not (regexMatch "^[0-9]+([.][0-9]+)?([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$" (toString $quantity)) }}
{{- $wrong = append $wrong (printf "%s.resources.%s.%s is %v: it is to be a quantity, such as 2, 500m or 64Mi." $program $kind $resource $quantity) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $program := list "manager" "sync" }}
{{- $log := (index $.Values $program).log }}
{{- range splitList "," $log }}
{{- if not (regexMatch "^ *([A-Za-z0-9_:-]+ *= *)?(?i:off|error|warn|info|debug|trace) *$" .) }}
{{- $wrong = append $wrong (printf "%s.log is %q: it is to be off, error, warn, info, debug or trace, or levels by module, as info,udht_%s=debug." $program $log $program) }}
{{- end }}
{{- end }}
{{- $own := include (printf "udht.%sOwnEnv" $program) $ }}
{{- range (index $.Values $program).env }}
{{- if regexMatch (printf "(?m)^- name: %s$" .name) $own }}
{{- $wrong = append $wrong (printf "%s.env has %s, which the chart sets from a value of its own: see the values." $program .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- range list
  (list "manager.maxClockDrift" .Values.manager.maxClockDrift "100ms" "1h")
  (list "manager.tombstoneMaxAge" .Values.manager.tombstoneMaxAge "1s" "3660d")
  (list "manager.floorInterval" .Values.manager.floorInterval "1s" "3660d")
  (list "sync.interval" .Values.sync.interval "50ms" "1h")
  (list "sync.pushDelay" .Values.sync.pushDelay "0ms" "1s")
  (list "sync.goneAfter" .Values.sync.goneAfter "10s" "7d")
  (list "tls.leafLifetime" .Values.tls.leafLifetime "10s" "7d")
  (list "tls.rotationOverlap" .Values.tls.rotationOverlap "1s" "7d") }}
{{- $ms := include "udht.ms" (index . 1) | int64 }}
{{- if or (lt $ms (include "udht.ms" (index . 2) | int64)) (gt $ms (include "udht.ms" (index . 3) | int64)) }}
{{- $wrong = append $wrong (printf "%s is %s: it is to be %s to %s." (index . 0) (index . 1) (index . 2) (index . 3)) }}
{{- end }}
{{- end }}
{{- if $wrong }}
{{- fail (printf "\n- %s" (join "\n- " $wrong)) }}
{{- end }}
{{- end }}

{{/* The milliseconds of a time such as 1h30m. */}}
{{- define "udht.ms" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 }}
{{- $sum := 0 }}
{{- range regexFindAll "[0-9]+(ms|[smhd])" . -1 }}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | int64) (index $units (regexFind "[a-z]+" .))) }}
{{- end }}
{{- $sum }}
{{- end }}
