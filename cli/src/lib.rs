//! kv: the command line of Meridian.
