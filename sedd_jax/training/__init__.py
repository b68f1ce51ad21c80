"""The one trainer: a pure step, spread over devices, in a loop."""
