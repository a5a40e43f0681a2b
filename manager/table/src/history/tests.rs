//! What is remembered, and what goes.
