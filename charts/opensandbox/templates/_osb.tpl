{{/*
A pod that runs a script of osb's commands against our server. The image of osb has no shell; that of execd has a static one and
lends it. Takes a list of the root, the script, its environment, and the seconds it may take.
*/}}
{{- define "opensandbox.osb.pod" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
activeDeadlineSeconds: {{ index . 3 }}
securityContext:
  {{- include "opensandbox.security.pod" $root | nindent 2 }}
{{- with $values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
initContainers:
  - name: shell
    image: {{ include "opensandbox.image" (list $root $values.execd.image) }}
    imagePullPolicy: {{ $values.execd.image.pullPolicy }}
    command: [/bin/sh, -c, cp /bin/busybox /shell/busybox]
    resources: &resources
      requests: {cpu: 10m, memory: 32Mi}
      limits: {memory: 128Mi}
    securityContext:
      {{- include "opensandbox.security.container" $root | nindent 6 }}
    volumeMounts:
      - {name: shell, mountPath: /shell}
containers:
  - name: osb
    image: {{ include "opensandbox.image" (list $root $values.tests.image) }}
    imagePullPolicy: {{ $values.tests.image.pullPolicy }}
    command: [/shell/busybox, sh, -euc]
    args:
      - |
        {{- if not $values.auth.insecure }}
        # The first line that holds a key itself, and not its hash.
        while read -r key rest || [ -n "$key" ]; do
          case "$key" in ''|'#'*|sha256:*) key= ;; *) break ;; esac
        done < /keys/api-key
        export OPEN_SANDBOX_API_KEY="$key"
        {{- end }}
        {{- index . 1 | trim | nindent 8 }}
    env:
      - {name: OPEN_SANDBOX_DOMAIN, value: "{{ include "opensandbox.server.name" $root }}.{{ include "opensandbox.namespace" $root }}.svc{{ if ne (include "opensandbox.server.port" $root) (ternary "443" "80" $values.tls.enabled) }}:{{ include "opensandbox.server.port" $root }}{{ end }}"}
      - {name: OPEN_SANDBOX_PROTOCOL, value: {{ ternary "https" "http" $values.tls.enabled }}}
      - {name: HOME, value: /tmp}
      {{- range $name, $value := index . 2 }}
      - {name: {{ $name }}, value: {{ $value | quote }}}
      {{- end }}
      {{- if $values.tls.enabled }}
      # Of a certificate that nobody else knows.
      - {name: SSL_CERT_FILE, value: /tls/ca.crt}
      {{- end }}
    resources: *resources
    securityContext:
      {{- include "opensandbox.security.container" $root | nindent 6 }}
    volumeMounts:
      - {name: shell, mountPath: /shell, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- if not $values.auth.insecure }}
      - {name: keys, mountPath: /keys, readOnly: true}
      {{- end }}
      {{- if $values.tls.enabled }}
      - {name: tls, mountPath: /tls, readOnly: true}
      {{- end }}
volumes:
  - name: shell
    emptyDir: {}
  - name: tmp
    emptyDir: {}
  {{- if not $values.auth.insecure }}
  - name: keys
    secret:
      secretName: {{ include "opensandbox.keys.name" $root }}
      defaultMode: 0440
      items: [{key: api-key, path: api-key}]
  {{- end }}
  {{- if $values.tls.enabled }}
  - name: tls
    secret:
      secretName: {{ include "opensandbox.tls.secret" $root }}
      defaultMode: 0440
      # Issuers that everybody knows give none.
      optional: true
      items: [{key: ca.crt, path: ca.crt}]
  {{- end }}
{{- end }}
