//! Random times, the same in every run.

use std::str::FromStr;

/// A generator (splitmix64; Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators").
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The numbers for `purpose`, which do not depend on how many are drawn for others.
    pub fn new(seed: u64, purpose: u64) -> Random {
        let mut random = Random { state: seed ^ (purpose << 32) };
        random.state = random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A whole number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Exponential, of mean 1.
    pub fn exponential(&mut self) -> f64 {
        // In (0, 1], so that the logarithm is finite.
        let uniform = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -uniform.ln()
    }
}

/// The percentage of [`Times::HeavyTailed`] that is long, and how many times as long it is.
const LONG: (usize, f64) = (1, 100.0);

/// How times vary. The mean is always 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Exponential.
    Exponential,
    /// Exponential, but one in a hundred a hundred times as long.
    HeavyTailed,
}

impl Times {
    /// The next one.
    pub fn draw(self, random: &mut Random) -> f64 {
        let time = random.exponential();
        match self {
            Times::Exponential => time,
            Times::HeavyTailed => {
                let (percent, longer) = LONG;
                let is_long = random.below(100) < percent;
                let share = percent as f64 / 100.0;
                time * if is_long { longer } else { 1.0 } / (1.0 - share + share * longer)
            }
        }
    }

    /// The mean of the squares.
    pub fn mean_square(self) -> f64 {
        match self {
            Times::Exponential => 2.0,
            Times::HeavyTailed => {
                let (percent, longer) = LONG;
                let share = percent as f64 / 100.0;
                let mean = 1.0 - share + share * longer;
                2.0 * (1.0 - share + share * longer * longer) / (mean * mean)
            }
        }
    }
}

impl FromStr for Times {
    type Err = ();

    fn from_str(text: &str) -> Result<Times, ()> {
        match text {
            "exponential" => Ok(Times::Exponential),
            "heavy-tailed" => Ok(Times::HeavyTailed),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_mean_and_the_mean_square_they_should() {
        for times in [Times::Exponential, Times::HeavyTailed] {
            let mut random = Random::new(1, 1);
            let all: Vec<f64> = (0..1_000_000).map(|_| times.draw(&mut random)).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let square = all.iter().map(|time| time * time).sum::<f64>() / all.len() as f64;
            assert!((0.98..1.02).contains(&mean), "{times:?}: {mean}");
            let known = times.mean_square();
            assert!((0.95 * known..1.05 * known).contains(&square), "{times:?}: {square}");
        }
    }

    #[test]
    fn an_exponential_is_below_its_mean_as_often_as_it_should() {
        let mut random = Random::new(1, 1);
        let below = (0..100_000).filter(|_| random.exponential() < 1.0).count();
        // 1 - 1/e
        assert!((62_000..64_500).contains(&below), "{below}");
    }
}
