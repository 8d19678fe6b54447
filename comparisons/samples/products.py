from . import array, call, values

_NAN = float("nan")

SAMPLES = {
    "matmul": [
        call(array(3, 4), array(4, 2)),
        call(array(4), array(4)),
        call(array(4), array(4, 2)),
        call(array(3, 4), array(4)),
        call(array(2, 1, 3, 4), array(5, 4, 2)),
        call(array(2, 3, 4), array(4)),
        call(array(4), array(2, 4, 3)),
    ],
    "bmm": [call(array(2, 3, 4), array(2, 4, 5)), call(array(1, 2, 3), array(1, 3, 1))],
    "addmm": [
        call(array(3, 2), array(3, 4), array(4, 2)),
        call(array(2), array(3, 4), array(4, 2), beta=0.5, alpha=-2),
        call(array(3, 1), array(3, 4), array(4, 2), beta=0),
        call(array(), array(1, 4), array(4, 2), alpha=0.3),
    ],
    "baddbmm": [
        call(array(2, 3, 5), array(2, 3, 4), array(2, 4, 5)),
        call(array(3, 1), array(2, 3, 4), array(2, 4, 5), beta=0.5, alpha=-2),
        call(array(2, 1, 1), array(2, 3, 4), array(2, 4, 5), beta=0),
    ],
    "outer": [call(array(3), array(4)), call(array(1), array(2))],
    "einsum": [
        call("ij,jk->ik", array(2, 3), array(3, 4)),
        call("bij,bjk->bik", array(2, 3, 4), array(2, 4, 2)),
        call("ij,kj", array(2, 3), array(4, 3)),
        call("ij,jk,kl->il", array(2, 3), array(3, 4), array(4, 2)),
        call("i,j->ij", array(3), array(4)),
        call("ij->ji", array(2, 3)),
        call("ij->", array(2, 3)),
        call("ii->i", array(3, 3)),
        call("ii", array(3, 3)),
        call("iji,ik->jk", array(3, 2, 3), array(3, 2)),
        call("...ij,...jk->...ik", array(2, 1, 3, 2), array(4, 2, 3)),
        call("... i, i ... -> ...", array(2, 3), array(3, 2)),
        call("i...->...", array(2, 3)),
        call("...ik,...j->ij", array(2, 3, 2), array(4)),
        call("ij,jk->ik", array(2, 3), array(1, 4)),
        call("ij,ij->i", array(1, 3), array(4, 3)),
        call("ab,ac,ad->bd", array(3, 2), array(3, 4), array(3, 2)),
        call("ijk,il->jl", [array(2, 3, 2), array(2, 4)]),
        call("Ab", (array(2, 3),)),
        call(",i->i", array(), array(3)),
    ],
}

CORNERS = {
    "matmul": [
        call(array(3, 0), array(0, 2)),
        call(array(0, 3), array(3, 2)),
        call(array(2, 0, 3), array(3)),
    ],
    "bmm": [
        call(array(2, 3, 0), array(2, 0, 4)),
        call(array(0, 2, 3), array(0, 3, 2)),
        call(array(2, 0, 3), array(2, 3, 2)),
    ],
    "addmm": [
        call(values([_NAN, 1.0]), array(3, 4), array(4, 2), beta=0),
        call(array(3, 2), array(3, 0), array(0, 2), beta=0.5),
        call(array(2), array(0, 4), array(4, 2)),
    ],
    "baddbmm": [
        call(values([_NAN, 1.0]), array(2, 3, 4), array(2, 4, 2), beta=0),
        call(array(2), array(2, 3, 0), array(2, 0, 2), beta=0.5),
        call(array(1), array(0, 3, 4), array(0, 4, 2)),
    ],
    "outer": [call(array(0), array(3)), call(array(3), array(0))],
    "einsum": [
        call("", array()),
        call("ij,jk->ik", array(2, 0), array(0, 3)),
        call("ij,jk->ik", array(0, 3), array(3, 2)),
        call("ij->i", array(0, 3)),
        call("ii->i", array(1, 1)),
        call("i,i->i", values([0.0, -0.0, 1e30]), values([1.0, 2.0, 1e-30])),
        call("i->", array(1000)),
    ],
}
