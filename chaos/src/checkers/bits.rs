//! Sets of small numbers: which of a key's writes a context covers.

/// A set of numbers below a bound that is fixed when the set is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// The empty set of numbers below `len`.
    pub(super) fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    /// Adds a number.
    pub(super) fn insert(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Takes a number out.
    pub(super) fn remove(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word &= !(1 << (number % 64));
        }
    }

    /// Whether a number is in it.
    pub(super) fn has(&self, number: usize) -> bool {
        self.0
            .get(number / 64)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Adds all of `other`.
    pub(super) fn add(&mut self, other: &Self) {
        for (word, theirs) in self.0.iter_mut().zip(&other.0) {
            *word |= theirs;
        }
    }

    /// What is here and not in `other`.
    pub(super) fn minus(&self, other: &Self) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(ours, theirs)| ours & !theirs)
                .collect(),
        )
    }

    /// What is in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(ours, theirs)| ours & theirs)
                .collect(),
        )
    }

    /// The least number in it.
    pub(super) fn first(&self) -> Option<usize> {
        self.iter().next()
    }

    /// How many are in it.
    pub(super) fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The numbers in it, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = usize::try_from(rest.trailing_zeros())
                    .ok()
                    .filter(|bit| *bit < 64)?;
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_behave_like_sets() {
        let mut a = Bits::new(130);
        for number in [0, 63, 64, 129] {
            a.insert(number);
        }
        let mut b = a.clone();
        b.remove(64);
        assert_eq!(a.minus(&b).iter().collect::<Vec<_>>(), vec![64]);
        assert_eq!((a.len(), b.len(), a.and(&b).len()), (4, 3, 3));
        assert!(a.has(129) && !b.has(64) && a.first() == Some(0));
        b.add(&a);
        assert_eq!(a, b);
    }
}
