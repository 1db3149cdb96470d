local os = require("os")

-- The id makes one click one request: whoever sees the same state in the same second asks for the same.
local id = "argocd-" .. (obj.metadata.resourceVersion or "0") .. "-" .. os.time()

if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end

-- Named, so that the content that was looked at is meant and no later one.
local content = "now"
if obj.status ~= nil and obj.status.rollout ~= nil and obj.status.rollout.content ~= nil then
  content = obj.status.rollout.content
end
obj.metadata.annotations["slipway.dev/abort"] = content .. "@" .. id .. " by an action of Argo CD"

-- Before Kubernetes 1.36 whoever asks says who he is, and the API server checks it; a newer one writes it anew.
obj.metadata.annotations["slipway.dev/abort-stamp"] = id .. " system:serviceaccount:argocd:argocd-server"
return obj
