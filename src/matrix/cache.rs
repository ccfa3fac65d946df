//! A map whose entries expire and whose size is bounded, for answers of other servers.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

pub struct Cache<K, V> {
    entries: HashMap<K, (Instant, V)>,
    capacity: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    pub fn new(capacity: usize) -> Cache<K, V> {
        Cache { entries: HashMap::new(), capacity }
    }

    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.entries.get(key).filter(|(until, _)| *until > now).map(|(_, value)| value.clone())
    }

    /// When full, makes room by dropping what has expired, else any entry: strangers decide what is asked for, so no
    /// order of theirs is worth keeping.
    pub fn insert(&mut self, key: K, value: V, now: Instant, lifetime: Duration) {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.entries.retain(|_, (until, _)| *until > now);
            if self.entries.len() >= self.capacity {
                let any = self.entries.keys().next().cloned();
                any.map(|any| self.entries.remove(&any));
            }
        }
        self.entries.insert(key, (now + lifetime, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_expire_and_never_exceed_the_capacity() {
        let mut cache = Cache::new(3);
        let start = Instant::now();
        let second = Duration::from_secs(1);
        cache.insert("short", 1, start, second);
        cache.insert("long", 2, start, 10 * second);
        assert_eq!((cache.get(&"short", start), cache.get(&"short", start + second)), (Some(1), None));
        cache.insert("third", 3, start, 10 * second);
        cache.insert("fourth", 4, start + second, 10 * second);
        assert_eq!(cache.get(&"long", start + second), Some(2), "the expired one made room");
        for n in 0..100 {
            cache.insert(Box::leak(n.to_string().into_boxed_str()), n, start, 10 * second);
            assert!(cache.entries.len() <= 3);
            assert_eq!(cache.get(&n.to_string().as_str(), start), Some(n));
        }
    }
}
