-- A RetrainJob that waits for a person is Healthy: a sync must not hang until somebody approves.
local function condition(kind)
  if obj.status ~= nil and obj.status.conditions ~= nil then
    for _, found in ipairs(obj.status.conditions) do
      if found.type == kind then
        return found
      end
    end
  end
  return {}
end

local function health(status, message)
  return { status = status, message = message or "" }
end

local seen = obj.status ~= nil and tonumber(obj.status.observedGeneration) or nil
if seen == nil or seen < tonumber(obj.metadata.generation or 0) then
  return health("Progressing", "waiting for the operator to look at the newest spec")
end

local ready = condition("Ready")
local stalled = condition("Stalled")
local reconciling = condition("Reconciling")
local awaiting = condition("AwaitingApproval")

if stalled.status == "True" then
  return health("Degraded", stalled.message)
end
if obj.spec.suspend == true then
  return health("Suspended", "starts no new run, as spec.suspend is true")
end
if ready.status == "True" then
  if awaiting.status == "True" then
    return health("Healthy", awaiting.message)
  end
  return health("Healthy", ready.message)
end
return health("Progressing", reconciling.message or ready.message or obj.status.summary)
