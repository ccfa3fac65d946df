pub struct Metrics;
impl Metrics {
    pub fn join_connected(&self, _: std::time::Duration) {}
    pub fn join_failed(&self, _: &str) {}
    pub fn sfu(&self, _: &crate::sfu::Counts) {}
}
