"""The three approaches of Hoffmann et al. 2203.15556 side by side, and what counting does to them."""
