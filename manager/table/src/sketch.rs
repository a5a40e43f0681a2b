//! stub
use crate::fingerprint::Fingerprint;
/// s
#[derive(Debug)]
pub struct Sketch;
/// s
#[derive(Debug)]
pub struct Symbol {
    /// s
    pub sum: u64,
    /// s
    pub check: u32,
    /// s
    pub count: i32,
}
/// s
pub fn encode(_: &[Symbol], _: &mut Vec<u8>) {}
impl Sketch {
    /// x
    pub const LEN: usize = 32_768;
    /// s
    pub fn symbols(&self, _: std::ops::Range<usize>) -> &[Symbol] {
        &[]
    }
    /// s
    pub fn new(_: usize) -> Self {
        Self
    }
    /// s
    pub fn insert(&mut self, _: Fingerprint) {}
    /// s
    pub fn remove(&mut self, _: Fingerprint) {}
    /// s
    pub fn summary(&self) -> Symbol {
        Symbol {
            sum: 0,
            check: 0,
            count: 0,
        }
    }
}
