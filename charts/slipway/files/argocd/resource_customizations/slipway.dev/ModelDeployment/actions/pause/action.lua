if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["slipway.dev/paused"] = "true"
return obj
