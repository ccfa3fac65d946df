mod path;

use path::{Link, Path, Source};

#[test]
#[ignore]
fn show() {
    let env = |name: &str, default: f64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let rate = env("RATE", 3e6);
    let mut link = Link::new(rate);
    link.loss = env("LOSS", 0.0);
    link.jitter = (env("JITTER", 0.0) * 1000.0) as i64;
    link.queue = (env("QUEUE", 400.0) * 1000.0) as i64;
    let mut source = Source::video(env("DESIRED", 20e6));
    source.frames = env("FRAMES", 1.0) > 0.0;
    source.at_most = env("ATMOST", f64::INFINITY);
    let mut path = Path::new(env("SEED", 1.0) as u64, link, source);
    path.constant = 0.0;
    path.window = env("WINDOW", 0.0);
    if env("TWO", 0.0) > 0.0 {
        path.add(source);
        path.senders[1].starts_at = 10_000_000;
    }
    path.run(10.0);
    path.link.rate *= env("DROP", 1.0);
    path.constant = env("CROSS", 0.0) * rate;
    path.run(10.0);
    path.link.rate = rate;
    path.run(env("TAIL", 20.0));
    for record in path.records.iter().step_by(env("EVERY", 4.0) as usize) {
        let e: Vec<_> = record.estimates.iter().map(|e| format!("{:6.0}", e / 1e3)).collect();
        println!("{:5.1} {} {:5.0}", record.at as f64 / 1e6, e.join(" "), record.queue_ms);
    }
    let s = &path.senders[0];
    println!("probes {:?}", s.probes.iter().map(|(at, r)| (*at / 1000, r / 1000)).collect::<Vec<_>>());
    println!("padding {} received {} window {}", s.padding_bytes, s.received_bytes, path.window_received_bytes);
    println!("last10 {:?} {:?}", path.estimates(0, path.now as f64 / 1e6 - 10.0, 1e3), path.queue_ms(path.now as f64 / 1e6 - 10.0, 1e3));
}

#[test]
#[ignore]
fn table() {
    println!("   rate  fr |  t75 mean  min  max  q  q95 | follow qend | t75 mean  q95 | pad%");
    for rate in [3e5, 1e6, 3e6, 1e7, 3e7] {
        for frames in [false, true] {
            for jitter in [0, 5, 20] {
                let mut sums = [0.0; 12];
                const SEEDS: u64 = 8;
                for seed in 0..SEEDS {
                    let mut link = Link::new(rate);
                    link.jitter = jitter * 1000;
                    let mut source = Source::video(60e6);
                    source.frames = frames;
                    let mut path = Path::new(seed, link, source);
                    path.run(20.0);
                    let first = |path: &Path, from: f64, f: &dyn Fn(f64, f64) -> bool| {
                        path.records.iter().find(|r| r.at as f64 / 1e6 > from && f(r.estimates[0], r.queue_ms)).map_or(99.0, |r| r.at as f64 / 1e6 - from)
                    };
                    let (mean, min, max) = path.estimates(0, 8.0, 20.0);
                    let (q, q95) = path.queue_ms(8.0, 20.0);
                    sums[0] += first(&path, 0.0, &|e, _| e > 0.75 * rate && e < 1.05 * rate);
                    sums[1] += mean / rate;
                    sums[2] += min / rate;
                    sums[3] += max / rate;
                    sums[4] += q;
                    sums[5] += q95;
                    path.link.rate = rate / 2.0;
                    path.run(15.0);
                    sums[6] += first(&path, 20.0, &|e, _| e < 0.55 * rate);
                    sums[7] += first(&path, 20.2, &|_, q| q < 100.0);
                    path.link.rate = rate;
                    path.run(20.0);
                    sums[8] += first(&path, 35.0, &|e, _| e > 0.75 * rate);
                    sums[9] += path.estimates(0, 45.0, 55.0).0 / rate;
                    sums[10] += path.queue_ms(40.0, 55.0).1;
                    sums[11] += 100.0 * path.senders[0].padding_bytes as f64 / path.senders[0].received_bytes as f64;
                }
                let s = sums.map(|s| s / SEEDS as f64);
                println!("{:7.0} {} {jitter:2} | {:4.1} {:.2} {:.2} {:.2} {:4.0} {:4.0} | {:4.1} {:4.1} | {:4.1} {:.2} {:4.0} | {:.2}", rate / 1e3, u8::from(frames), s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], s[11]);
            }
        }
    }
}
