local os = require("os")

if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["slipway.dev/retry"] = "argocd-" .. (obj.metadata.resourceVersion or "0") .. "-" .. os.time()
return obj
