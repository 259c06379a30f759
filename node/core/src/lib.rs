//! The Meridian node as a state machine: no clock, no thread, no socket, no chance of its own.
