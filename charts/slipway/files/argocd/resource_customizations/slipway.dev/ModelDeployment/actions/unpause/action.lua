if obj.metadata.annotations ~= nil then
  obj.metadata.annotations["slipway.dev/paused"] = nil
end
return obj
