//! What whole sibling sets promise: the laws of their joins, the protocol's counter-examples, and zones that exchange
//! writes at random against a model that knows who has seen what.

#[cfg(test)]
mod codec;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod world;
