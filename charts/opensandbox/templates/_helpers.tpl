{{/* Namespace of the platform's own components. */}}
{{- define "opensandbox.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end }}

{{/* Prefix of every object's name. Fixed by default, so that names are known whatever the release is called. */}}
{{- define "opensandbox.fullname" -}}
{{- .Values.fullnameOverride | default (.Values.nameOverride | default .Chart.Name) | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Prefix of objects without a namespace: two releases may share a cluster. */}}
{{- define "opensandbox.clustername" -}}
{{- printf "%s:%s" (include "opensandbox.namespace" .) (include "opensandbox.fullname" .) -}}
{{- end }}

{{- define "opensandbox.controller.name" -}}
{{- printf "%s-controller-manager" (include "opensandbox.fullname" .) -}}
{{- end }}

{{- define "opensandbox.server.name" -}}
{{- printf "%s-server" (include "opensandbox.fullname" .) -}}
{{- end }}

{{/* Labels that select: never changed. Takes a list of the root and the component. */}}
{{- define "opensandbox.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Values.nameOverride | default $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Every label of an object. Takes a list of the root and the component. */}}
{{- define "opensandbox.labels" -}}
{{- $root := index . 0 -}}
{{ include "opensandbox.selector" . }}
app.kubernetes.io/part-of: opensandbox
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Name, labels and annotations of an object in the platform's namespace. */}}
{{- define "opensandbox.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $image.registry | default $root.Values.global.imageRegistry -}}
{{- $name := $image.repository -}}
{{- if $registry }}{{ $name = printf "%s/%s" (trimSuffix "/" $registry) $name }}{{ end -}}
{{- $name = printf "%s:%s" $name ($image.tag | default $root.Chart.AppVersion) -}}
{{- if $image.digest }}{{ $name = printf "%s@%s" $name $image.digest }}{{ end -}}
{{- $name -}}
{{- end }}

{{- define "opensandbox.keys.name" -}}
{{- .Values.auth.existingSecret | default (printf "%s-keys" (include "opensandbox.fullname" .)) -}}
{{- end }}

{{/* Metadata of an object in the platform's namespace. Takes a list of the root, the component and the name. */}}
{{- define "opensandbox.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ include "opensandbox.namespace" $root }}
labels:
  {{- include "opensandbox.labels" (list $root (index . 1)) | nindent 2 }}
{{- with $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "opensandbox.controller.account" -}}
{{- $account := .Values.controller.serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (include "opensandbox.controller.name" .) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "opensandbox.server.account" -}}
{{- $account := .Values.server.serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (include "opensandbox.server.name" .) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* Namespaces the controller looks after, as JSON; none is all. The platform's own needs no mention: only its lease is there. */}}
{{- define "opensandbox.watched" -}}
{{- if eq .Values.rbac.scope "namespaces" }}{{ .Values.rbac.namespaces | uniq | sortAlpha | toJson }}{{ else }}[]{{ end -}}
{{- end }}

{{/* A map as TOML: its values first, then its tables. Takes a list of the path and the map. */}}
{{- define "opensandbox.toml" -}}
{{- $path := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ $key }} = {{ include "opensandbox.toml.value" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := index . 1 -}}
{{- if kindIs "map" $value }}
{{- $inner := ternary $key (printf "%s.%s" $path $key) (eq $path "") }}
[{{ $inner }}]
{{- include "opensandbox.toml" (list $inner $value) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Values from --set are 64-bit floats, which TOML keeps apart from integers. */}}
{{- define "opensandbox.toml.value" -}}
{{- if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end }}

{{/* Spread over nodes where the values name no affinity. Takes a list of the root, the component and its values. */}}
{{- define "opensandbox.placement" -}}
{{- $selector := include "opensandbox.selector" (list (index . 0) (index . 1)) -}}
{{- $values := index . 2 -}}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
{{- if $values.affinity }}
  {{- toYaml $values.affinity | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $constraint := deepCopy . }}
  {{- if not (hasKey $constraint "labelSelector") }}
  {{- $_ := set $constraint "labelSelector" (dict "matchLabels" ($selector | fromYaml)) }}
  {{- end }}
  - {{ toYaml $constraint | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
{{- with (index . 0).Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Pod Security `restricted`, and a read-only root. */}}
{{- define "opensandbox.security.pod" -}}
runAsNonRoot: true
{{- with .Values.podSecurityContext }}
{{ toYaml . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "opensandbox.security.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Probes of the admin listener. */}}
{{- define "opensandbox.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end }}

{{/* The server's configuration file: what the values say, and over it `server.config`. */}}
{{- define "opensandbox.server.config" -}}
{{- $server := dict "host" "0.0.0.0" "port" 8080 "endpoints" .Values.server.endpoints -}}
{{- /* What is left of the grace, less a margin for the end itself. */ -}}
{{- $_ := set $server "shutdown_delay_seconds" .Values.server.shutdownDelaySeconds -}}
{{- $_ := set $server "timeout_graceful_shutdown" (max 1 (sub (sub (int .Values.server.terminationGracePeriodSeconds) (int .Values.server.shutdownDelaySeconds)) 5)) -}}
{{- with .Values.server.publicHost }}{{ $_ := set $server "eip" . }}{{ end -}}
{{- with .Values.server.maxSandboxTimeoutSeconds }}{{ $_ := set $server "max_sandbox_timeout_seconds" . }}{{ end -}}
{{- $kubernetes := dict
  "namespace" .Values.sandboxes.namespace
  "sandbox_create_timeout_seconds" .Values.server.createTimeoutSeconds
  "pool_acquisition_timeout_seconds" .Values.server.poolAcquisitionTimeoutSeconds -}}
{{- $runtime := dict "type" "kubernetes" "execd_image" (include "opensandbox.image" (list . .Values.execd.image)) -}}
{{- $config := dict "server" $server "kubernetes" $kubernetes "runtime" $runtime -}}
{{- include "opensandbox.toml" (list "" (mergeOverwrite $config .Values.server.config)) | trim -}}
{{- end }}

{{- define "opensandbox.server.port" -}}
{{- .Values.server.service.port | default (ternary 443 80 .Values.tls.enabled) -}}
{{- end }}

{{- define "opensandbox.tls.secret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "opensandbox.server.name" .)) -}}
{{- end }}

{{/* Fills a pool's template in place. Takes a list of the root, the pool's name and the template. */}}
{{- define "opensandbox.pool.fill" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 1 -}}
{{- $spec := (index . 2).spec -}}
{{- $secrets := $root.Values.sandboxes.imagePullSecrets -}}
{{- if and $secrets (not $spec.imagePullSecrets) }}{{ $_ := set $spec "imagePullSecrets" $secrets }}{{ end -}}
{{- range $spec.initContainers -}}
{{- if contains "execd" .name }}{{ include "opensandbox.pool.image" (list $root . $root.Values.execd.image) }}{{ end -}}
{{- end -}}
{{- range $spec.containers -}}
{{- if eq .name "task-executor" }}{{ include "opensandbox.pool.image" (list $root . $root.Values.taskExecutor.image) }}{{ end -}}
{{- end -}}
{{- range concat ($spec.initContainers | default list) ($spec.containers | default list) -}}
{{- if not .image -}}
{{- fail (printf "\n\npools: container %q of pool %q names no image. Only task-executor and init containers called *execd* get theirs from the values.\n" .name $pool) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Sets a container's image and pull policy where it has none. */}}
{{- define "opensandbox.pool.image" -}}
{{- $container := index . 1 -}}
{{- if not $container.image -}}
{{- $_ := set $container "image" (include "opensandbox.image" (list (index . 0) (index . 2))) -}}
{{- $_ := set $container "imagePullPolicy" ($container.imagePullPolicy | default (index . 2).pullPolicy) -}}
{{- end -}}
{{- end }}
