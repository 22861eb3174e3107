{{/* A component of ours as a peer of a NetworkPolicy. Takes a list of the root and the component. */}}
{{- define "opensandbox.peer" -}}
namespaceSelector:
  matchLabels:
    kubernetes.io/metadata.name: {{ include "opensandbox.namespace" (index . 0) }}
podSelector:
  matchLabels:
    {{- include "opensandbox.selector" . | nindent 4 }}
{{- end }}

{{/* DNS of the cluster, wherever it runs. */}}
{{- define "opensandbox.egress.dns" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}

{{/* What the controller and the server both reach. */}}
{{- define "opensandbox.egress.platform" -}}
{{- $policy := .Values.networkPolicy.platform -}}
{{ include "opensandbox.egress.dns" . }}
- ports:
    {{- range $policy.apiServerPorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with $policy.apiServerCidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
{{- end }}
