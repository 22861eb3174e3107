{{/*
Every template begins with this. `helm upgrade --reuse-values` hands a new chart the values of the old one, without what is
new; then the defaults are put beneath them. Otherwise nothing is done, so that a default set to null stays away.
*/}}
{{- define "opensandbox.init" -}}
{{- $defaults := .Files.Get "files/defaults.yaml" | fromYaml -}}
{{- if lt (int (.Values.valuesRevision | default 0)) (int $defaults.valuesRevision) -}}
{{- $_ := set . "Values" (mergeOverwrite $defaults (deepCopy .Values) (dict "valuesRevision" $defaults.valuesRevision)) -}}
{{- end -}}
{{- end }}

{{/* Says what is wrong and what to do, and ends. */}}
{{- define "opensandbox.refuse" -}}
{{- fail (printf "\n\n%s\n" .) -}}
{{- end }}

{{/* Not empty when the cluster can be asked: `helm template` and dry runs of clients can't. */}}
{{- define "opensandbox.online" -}}
{{- if .Values.checks.enabled }}{{ if lookup "v1" "Namespace" "" "kube-system" }}yes{{ end }}{{ end -}}
{{- end }}

{{/* Namespaces with sandboxes that the values know of, as JSON. */}}
{{- define "opensandbox.sandboxed" -}}
{{- $all := list .Values.sandboxes.namespace -}}
{{- range .Values.pools }}{{ $all = append $all ((.metadata).namespace | default $.Values.sandboxes.namespace) }}{{ end -}}
{{- if eq .Values.rbac.scope "namespaces" }}{{ $all = concat $all .Values.rbac.namespaces }}{{ end -}}
{{- $all | uniq | sortAlpha | toJson -}}
{{- end }}
