{{/* What the controller does, and nothing else. */}}
{{- define "opensandbox.controller.rules" -}}
- apiGroups: [sandbox.opensandbox.io]
  resources: [pools]
  verbs: [get, list, watch]
- apiGroups: [sandbox.opensandbox.io]
  resources: [batchsandboxes]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [sandbox.opensandbox.io]
  resources: [pools/status, batchsandboxes/status]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.rbac.ownerFinalizers }}
- apiGroups: [sandbox.opensandbox.io]
  resources: [pools/finalizers, batchsandboxes/finalizers]
  verbs: [update]
{{- end }}
{{- end }}
