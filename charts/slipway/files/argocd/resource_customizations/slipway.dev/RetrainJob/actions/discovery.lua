local is_suspended = obj.spec.suspend == true

local actions = {}
actions["suspend"] = {
  ["disabled"] = is_suspended,
  ["displayName"] = "Suspend: no new run starts",
  ["iconClass"] = "fa fa-fw fa-pause-circle",
}
actions["resume"] = {
  ["disabled"] = not is_suspended,
  ["displayName"] = "Resume the schedule",
  ["iconClass"] = "fa fa-fw fa-play-circle",
}
return actions
