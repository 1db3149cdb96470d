local os = require("os")

-- The id makes one click one request: whoever sees the same state in the same second asks for the same.
local id = "argocd-" .. (obj.metadata.resourceVersion or "0") .. "-" .. os.time()

if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["slipway.dev/rollback"] = "previous@" .. id .. " by an action of Argo CD"
return obj
