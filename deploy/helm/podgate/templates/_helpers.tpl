{{/* What the kustomizations add to every object: a label, and the namespace. */}}
{{- define "podgate.metadata" -}}
{{- $labels := dict "app.kubernetes.io/name" "podgate" -}}
{{- $_ := set .object.metadata "labels" (merge (.object.metadata.labels | default dict) $labels) -}}
{{- $_ := set .object.metadata "namespace" .root.Release.Namespace -}}
{{- end -}}

{{/* An object of a file. */}}
{{- define "podgate.object" -}}
{{- $object := .root.Files.Get .file | fromYaml -}}
{{- include "podgate.metadata" (dict "object" $object "root" .root) -}}
{{- toYaml $object -}}
{{- end -}}
