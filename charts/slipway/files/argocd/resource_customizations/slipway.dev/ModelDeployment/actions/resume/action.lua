local os = require("os")

-- The id makes one click one request: whoever sees the same state in the same second asks for the same.
local id = "argocd-" .. (obj.metadata.resourceVersion or "0") .. "-" .. os.time()

if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["slipway.dev/resume"] = "now@" .. id .. " by an action of Argo CD"

-- Before Kubernetes 1.36 whoever asks says who he is, and the API server checks it; a newer one writes it anew.
obj.metadata.annotations["slipway.dev/resume-stamp"] = id .. " system:serviceaccount:argocd:argocd-server"
return obj
