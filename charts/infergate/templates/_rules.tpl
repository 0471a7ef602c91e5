{{/* What the control plane reads and writes in namespaces. */}}
{{- define "infergate.namespacedRules" -}}
# Resources that are read
- apiGroups: [""]
  resources: [configmaps, pods, secrets, services]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources:
    - backendtlspolicies
    - gateways
    - grpcroutes
    - httproutes
    - listenersets
    - referencegrants
    - tcproutes
    - tlsroutes
    - udproutes
  verbs: [get, list, watch]
- apiGroups: [inference.networking.k8s.io, inference.networking.x-k8s.io]
  resources: [inferencepools]
  verbs: [get, list, watch]
- apiGroups: [inference.networking.x-k8s.io]
  resources: [inferencemodels]
  verbs: [get, list, watch]
- apiGroups: [inference.networking.x-k8s.io, llm-d.ai]
  resources: [inferencemodelrewrites, inferenceobjectives]
  verbs: [get, list, watch]
- apiGroups: [infergate.dev]
  resources: [gatewayparameters, pickerpolicies]
  verbs: [get, list, watch]
# Statuses and events that are written
- apiGroups: [gateway.networking.k8s.io]
  resources:
    - backendtlspolicies/status
    - gateways/status
    - grpcroutes/status
    - httproutes/status
    - listenersets/status
    - tcproutes/status
    - tlsroutes/status
    - udproutes/status
  verbs: [patch]
- apiGroups: [inference.networking.k8s.io, inference.networking.x-k8s.io]
  resources: [inferencepools/status]
  verbs: [patch]
- apiGroups: [inference.networking.x-k8s.io]
  resources: [inferencemodels/status]
  verbs: [patch]
- apiGroups: [inference.networking.x-k8s.io, llm-d.ai]
  resources: [inferencemodelrewrites/status, inferenceobjectives/status]
  verbs: [patch]
- apiGroups: [infergate.dev]
  resources: [pickerpolicies/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# Objects of the Gateways' data planes. A Service is never deleted: it goes with its Gateway, by its owner reference.
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, create, patch, delete]
{{- end -}}
