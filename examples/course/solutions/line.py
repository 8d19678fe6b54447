"""1. A line, and what it is in more than one dimension.

    y = x wᵀ + b        x (N, I), w (O, I), b (O) → y (N, O)

For one number in and one out that is y = w x + b. Written out, y[n, o] = Σᵢ x[n, i] w[o, i] + b[o].

The slope of the loss in each y[n, o] arrives as dy[n, o]. To derive: which y depend on one x[n, i],
which on one w[o, i], which on one b[o]? Multiply each by its slope and add up over all of them,

    dx[n, i] = Σₒ dy[n, o] · …        dw[o, i] = Σₙ dy[n, o] · …        db[o] = Σₙ dy[n, o] · …

and write the sums as products of matrices. The shapes say whether one has to be transposed.

gradtwin check line.py:line --against torch.nn.functional.linear --shape 5,3 --shape 2,3 --shape 2
"""


def line(x, w, b):
    y = x @ w.T + b

    def pullback(dy):
        return dy @ w, dy.T @ x, dy.sum(0)

    return y, pullback
