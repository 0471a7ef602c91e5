{{/* Name of the chart's objects. Services' names start with a letter. */}}
{{- define "infergate.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $release := .Release.Name -}}
{{- if regexMatch "^[0-9]" $release -}}
{{- $release = printf "%s-%s" .Chart.Name $release -}}
{{- end -}}
{{- if contains $name $release -}}
{{- $release | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" $release $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of cluster-scoped objects: two releases in two namespaces do not share them. */}}
{{- define "infergate.clusterName" -}}
{{- printf "%s-%s" (include "infergate.name" .) .Release.Namespace | trunc 253 | trimSuffix "-" -}}
{{- end -}}

{{- define "infergate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "infergate.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The control plane's pods, or those of a picker. Those of data planes have the component data-plane. */}}
{{- define "infergate.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: {{ ternary "picker" "control-plane" .Values.picker.enabled | quote }}
{{- end -}}

{{- define "infergate.labels" -}}
{{ include "infergate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{/* Namespaces that are read, as JSON; none is all. The parameters of our GatewayClass are in the release's own. */}}
{{- define "infergate.namespaces" -}}
{{- $found := .Values.watchNamespaces -}}
{{- if and $found .Values.gatewayClass.create .Values.gatewayClass.parameters -}}
{{- $found = append $found .Release.Namespace | uniq -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "infergate.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}
