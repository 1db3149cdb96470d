-- An action is enabled where Slipway would act on it now; what it refuses all the same it says in status.requests.
local status = obj.status or {}
local annotations = obj.metadata.annotations or {}

local function is_stalled()
  for _, found in ipairs(status.conditions or {}) do
    if found.type == "Stalled" and found.status == "True" then
      return found.reason ~= "RolledBack" and found.reason ~= "Aborted"
    end
  end
  return false
end

local has_live = status.live ~= nil
local has_previous = has_live and status.standby ~= nil
local has_held = status.held ~= nil and #status.held > 0
local is_rolling_out = has_live and status.rollout ~= nil
local is_paused = annotations["slipway.dev/paused"] == "true"

local actions = {}
actions["rollback"] = {
  ["disabled"] = not has_previous,
  ["displayName"] = "Roll back to the previous content",
  ["iconClass"] = "fa fa-fw fa-undo",
}
actions["rollback-to"] = {
  ["disabled"] = not has_live,
  ["displayName"] = "Roll back to a revision of the log",
  ["iconClass"] = "fa fa-fw fa-history",
  ["params"] = { { ["name"] = "revision" } },
}
actions["resume"] = {
  ["disabled"] = not has_held,
  ["displayName"] = "Release what is held",
  ["iconClass"] = "fa fa-fw fa-play-circle",
}
actions["promote"] = {
  ["disabled"] = not is_rolling_out,
  ["displayName"] = "Go live now",
  ["iconClass"] = "fa fa-fw fa-forward",
}
actions["abort"] = {
  ["disabled"] = not is_rolling_out,
  ["displayName"] = "Give the new content up",
  ["iconClass"] = "fa fa-fw fa-stop-circle",
}
actions["pause"] = {
  ["disabled"] = is_paused,
  ["displayName"] = "Pause: nothing goes further",
  ["iconClass"] = "fa fa-fw fa-pause-circle",
}
actions["unpause"] = {
  ["disabled"] = not is_paused,
  ["displayName"] = "Unpause",
  ["iconClass"] = "fa fa-fw fa-play",
}
actions["retry"] = {
  ["disabled"] = not is_stalled(),
  ["displayName"] = "Run the failed step again",
  ["iconClass"] = "fa fa-fw fa-redo",
}
return actions
