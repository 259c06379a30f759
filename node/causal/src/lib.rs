//! Causality for Meridian: dots, version vectors, sibling sets, clocks and tokens.
