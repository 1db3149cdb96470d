{{/* Name of everything in the release's namespace. */}}
{{- define "slipway.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of what has no namespace. In namespaced mode several releases may stand side by side. */}}
{{- define "slipway.clusterName" -}}
{{- if .Values.namespaces -}}
{{- printf "%s-%s" (include "slipway.name" .) .Release.Namespace -}}
{{- else -}}
{{- include "slipway.name" . -}}
{{- end -}}
{{- end -}}

{{- define "slipway.selector" -}}
app.kubernetes.io/name: slipway
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "slipway.labels" -}}
app.kubernetes.io/name: slipway
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: slipway
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "slipway.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "slipway.name" .) -}}
{{- end -}}

{{/* The operator as the API server knows it. */}}
{{- define "slipway.user" -}}
{{- printf "system:serviceaccount:%s:%s" .Release.Namespace (include "slipway.serviceAccount" .) -}}
{{- end -}}

{{/* What a release cannot do without; said here, as a schema's message would name only the key. */}}
{{- define "slipway.check" -}}
{{- $hint := "pass the values that `make images` writes: --values build/images-values.yaml" -}}
{{- range $name := list "operator" "builder" "runtime" -}}
{{- if not (get $.Values.images $name) -}}
{{- fail (printf "images.%s is not set: %s" $name $hint) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.compiler.enabled (not .Values.images.builderCompiler) -}}
{{- fail (printf "compiler.enabled needs images.builderCompiler: %s" $hint) -}}
{{- end -}}
{{- if not .Values.interpreters -}}
{{- fail (printf "interpreters is empty, so that no project could be built: %s" $hint) -}}
{{- end -}}
{{- if not .Values.registry.prefix -}}
{{- fail "registry.prefix is not set: name the registry that Slipway pushes to, as host[:port]/prefix" -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false: set serviceAccount.name to the one that exists" -}}
{{- end -}}
{{- end -}}

{{/* Who sees to it that a stamp (who asked) is true: the API server writes it, or checks it where it is older, or nobody. */}}
{{- define "slipway.stamps" -}}
{{- if not .Values.admissionPolicies.enabled -}}
Unchecked
{{- else if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
Written
{{- else -}}
Checked
{{- end -}}
{{- end -}}

{{/* The operator's settings file: domain/settings.py reads it and knows no other keys. */}}
{{- define "slipway.settings" -}}
{{- $registry := dict "prefix" .Values.registry.prefix "insecure" .Values.registry.insecure -}}
{{- with .Values.registry.secretName }}{{- $_ := set $registry "secretName" . }}{{- end -}}
{{- $images := dict "builder" .Values.images.builder "runtime" .Values.images.runtime -}}
{{- if .Values.compiler.enabled }}{{- $_ := set $images "compiler" .Values.images.builderCompiler }}{{- end -}}
{{- $index := dict -}}
{{- with .Values.index.url }}{{- $_ := set $index "url" . }}{{- end -}}
{{- with .Values.index.secretName }}{{- $_ := set $index "secretName" . }}{{- end -}}
{{- $proxy := dict -}}
{{- range $key, $value := .Values.proxy }}{{- if $value }}{{- $_ := set $proxy $key $value }}{{- end }}{{- end -}}
{{- $serving := dict "accessLog" .Values.serving.accessLog "metricsFrom" .Values.serving.metricsFrom -}}
{{- if .Values.serving.traces.endpoint }}{{- $_ := set $serving "traces" .Values.serving.traces }}{{- end -}}
{{- $settings := dict
  "images" $images
  "interpreters" .Values.interpreters
  "registry" $registry
  "index" $index
  "proxy" $proxy
  "packageLists" .Values.packageLists
  "jobs" .Values.jobs
  "rollback" .Values.rollback
  "cleanUp" .Values.cleanUp
  "log" .Values.log
  "serving" $serving
  "modelDelivery" .Values.modelDelivery
  "stamps" (include "slipway.stamps" .)
  "namespaces" .Values.namespaces
  "operatorNamespace" .Release.Namespace
-}}
{{- with .Values.caBundle }}{{- $_ := set $settings "caBundle" . }}{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* What the operator does in a namespace that it serves. docs/security.md says why, line by line. */}}
{{- define "slipway.rules" -}}
- apiGroups: [slipway.dev]
  resources: [modeldeployments, retrainjobs]
  verbs: [get, list, watch]
- apiGroups: [slipway.dev]
  resources: [modeldeployments/status, retrainjobs/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* For people who may roll back and nothing else. Patch alone changes no spec: the policy <release>-requests asks for
update there, and for rollback here. */}}
{{- define "slipway.rollbackRules" -}}
- apiGroups: [slipway.dev]
  resources: [modeldeployments]
  verbs: [get, list, watch, patch, rollback]
- apiGroups: [apps]
  resources: [controllerrevisions, deployments]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- end -}}
