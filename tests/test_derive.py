"""Deriving cascades that make fewer passes: single identities, whole targets, and what must not be offered."""

from fractions import Fraction

import numpy as np
import pytest
from references.build import cascade_of

from fusemodel.analysis import passes
from fusemodel.analysis.derive import derive
from fusemodel.analysis.derive.chain import best_order
from fusemodel.analysis.derive.check import Check
from fusemodel.analysis.derive.fiber import Fiber, StuckError
from fusemodel.analysis.derive.identities import (
    correction,
    expanded_form,
    exponent_that_waits,
    monotone_part,
    pull_from_extreme,
    split_product,
)
from fusemodel.analysis.derive.normal import Normal
from fusemodel.analysis.derive.running import tiled
from fusemodel.analysis.derive.signs import nonnegative
from fusemodel.analysis.derive.terms import ONE, Mono, Poly, term_expr, to_expr
from fusemodel.cascade import Cascade, extents_of, format_cascade, format_einsums, load_cascade, parse_cascade
from fusemodel.cascade.parse import Names, parse_expression
from fusemodel.cascade.printer import format_expr
from fusemodel.errors import NOWHERE, InputError
from fusemodel.library import names
from fusemodel.numerics import compare, random_inputs, run

# Targets: cascades that must be improved, and the passes reached over one rank

HEAD = "p: 64, m: 128, e: 16, f: 16"
QKV = "Q: [e, p], K: [e, m], V: [f, m]"
SOFT = """
QK[m, p] = Q[e, p] * K[e, m]
GM[p] = max[m](QK[m, p])
SN[m, p] = exp(QK[m, p] - GM[p])
SD[p] = sum[m](SN[m, p])
A[m, p] = SN[m, p] / SD[p]
"""
TARGETS: dict[str, Cascade] = {}


def t(name, equations, ranks=HEAD, inputs=QKV, outputs="AV"):
    TARGETS[name] = cascade_of(equations, ranks=ranks, inputs=inputs, outputs=outputs)


t(
    "bias-after-softmax",
    SOFT + "AC[m, p] = A[m, p] * C[p, m]\nAV[f, p] = AC[m, p] * V[f, m]",
    inputs=QKV + ", C: [p, m]",
)
t(
    "gated",
    """
QK[m, p] = Q[e, p] * K[e, m]
GM[p] = max[m](QK[m, p])
SN[m, p] = exp(QK[m, p] - GM[p])
SD[p] = sum[m](SN[m, p])
A[m, p] = SN[m, p] / SD[p]
PK[m, p] = R[m, p] * W
HM[p] = max[m](PK[m, p])
TN[m, p] = exp(PK[m, p] - HM[p])
TD[p] = sum[m](TN[m, p])
B[m, p] = TN[m, p] / TD[p]
MIX[m, p] = G[p] * A[m, p] + (1 - G[p]) * B[m, p]
AV[f, p] = MIX[m, p] * V[f, m]
""",
    inputs=QKV + ", R: [m, p], G: [p], W: []",
)
t(
    "gated-renorm",
    """
QK[m, p] = Q[e, p] * K[e, m]
GM[p] = max[m](QK[m, p])
SN[m, p] = exp(QK[m, p] - GM[p])
SD[p] = sum[m](SN[m, p])
A[m, p] = SN[m, p] / SD[p]
HM[p] = max[m](R[m, p])
TN[m, p] = exp(R[m, p] - HM[p])
TD[p] = sum[m](TN[m, p])
B[m, p] = TN[m, p] / TD[p]
MIX[m, p] = (1 - sigmoid(G[p])) * A[m, p] + sigmoid(G[p]) * B[m, p]
MS[p] = sum[m](MIX[m, p])
N[m, p] = MIX[m, p] / MS[p]
AV[f, p] = N[m, p] * V[f, m]
""",
    inputs=QKV + ", R: [m, p], G: [p]",
)
t(
    "group-reweighted",
    SOFT
    + """
AW[m, p] = A[m, p] * (1 + LAM * SINK[m])
WS[p] = sum[m](AW[m, p])
AN[m, p] = AW[m, p] / WS[p]
AV[f, p] = AN[m, p] * V[f, m]
""",
    inputs=QKV + ", SINK: [m], LAM: []",
)
t(
    "var-redistribution",
    SOFT
    + """
SA[p] = sum[m](A[m, p] * SINK[m])
IA[p] = sum[m](A[m, p] * IMG[m])
AN[m, p] = A[m, p] * (1 - SINK[m]) + 0.4 * SA[p] * A[m, p] * IMG[m] / IA[p]
AV[f, p] = AN[m, p] * V[f, m]
""",
    inputs=QKV + ", SINK: [m], IMG: [m]",
)
t(
    "select-reweighted",
    SOFT
    + """
SA[p] = sum[m](select(SINK[m] > 0, A[m, p], 0))
AN[m, p] = select(SINK[m] > 0, A[m, p] * 0.5, A[m, p] * (1 - 0.5 * SA[p]) / (1 - SA[p]))
AV[f, p] = AN[m, p] * V[f, m]
""",
    inputs=QKV + ", SINK: [m]",
)
t("causal", SOFT.replace("K[e, m]", "K[e, m] where m <= p") + "AV[f, p] = A[m, p] * V[f, m]")
t(
    "window",
    SOFT.replace("K[e, m]", "K[e, m] where m <= p and p - m < 5") + "AV[f, p] = A[m, p] * V[f, m]",
    ranks="p: 128, m: 128, e: 16, f: 16",
)
t(
    "keep-mask",
    SOFT.replace("K[e, m]", "K[e, m] where KEEP[m, p]") + "AV[f, p] = A[m, p] * V[f, m]",
    inputs=QKV + ", KEEP: [m, p]",
)
t("scaled", SOFT.replace("Q[e, p] * K[e, m]", "Q[e, p] * K[e, m] / sqrt(E)") + "AV[f, p] = A[m, p] * V[f, m]")
t(
    "scale-in-exp",
    """
QK[m, p] = Q[e, p] * K[e, m]
GM[p] = max[m](QK[m, p])
SN[m, p] = exp((QK[m, p] - GM[p]) / sqrt(E))
SD[p] = sum[m](SN[m, p])
AV[f, p] = sum[m](SN[m, p] / SD[p] * V[f, m])
""",
)
t(
    "sink",
    """
QK[m, p] = Q[e, p] * K[e, m]
M0X[p] = max[m](QK[m, p])
GM[p] = max(M0X[p], S)
SN[m, p] = exp(QK[m, p] - GM[p])
SD[p] = sum[m](SN[m, p])
DEN[p] = SD[p] + exp(S - GM[p])
A[m, p] = SN[m, p] / DEN[p]
AV[f, p] = A[m, p] * V[f, m]
""",
    inputs=QKV + ", S: []",
)
t(
    "mla",
    """
QN[e, h, p] = X[d, p] * WQ[d, h, e]
C[l, m] = Y[d, m] * WC[d, l]
KN[e, h, m] = C[l, m] * WK[l, h, e]
V[f, h, m] = C[l, m] * WV[l, h, f]
SN1[h, m, p] = QN[e, h, p] * KN[e, h, m]
SR1[h, m, p] = QR[r, h, p] * KR[r, m]
S[h, m, p] = SN1[h, m, p] + SR1[h, m, p]
GM[h, p] = max[m](S[h, m, p])
SN[h, m, p] = exp(S[h, m, p] - GM[h, p])
SD[h, p] = sum[m](SN[h, m, p])
A[h, m, p] = SN[h, m, p] / SD[h, p]
AV[f, h, p] = A[h, m, p] * V[f, h, m]
""",
    ranks="p: 8, m: 32, d: 12, h: 3, l: 4, e: 5, r: 2, f: 6",
    inputs="X: [d, p], Y: [d, m], WQ: [d, h, e], WC: [d, l], WK: [l, h, e], WV: [l, h, f], QR: [r, h, p], KR: [r, m]",
)
t(
    "mla-absorbed",
    """
QA[l, h, p] = QN[e, h, p] * WK[l, h, e]
S[h, m, p] = QA[l, h, p] * C[l, m] + QR[l, h, p] * KR[l, m]
GM[h, p] = max[m](S[h, m, p])
SN[h, m, p] = exp(S[h, m, p] - GM[h, p])
SD[h, p] = sum[m](SN[h, m, p])
A[h, m, p] = SN[h, m, p] / SD[h, p]
O[l, h, p] = A[h, m, p] * C[l, m]
AV[f, h, p] = O[l, h, p] * WV[l, h, f]
""",
    ranks="p: 8, m: 32, h: 3, l: 4, e: 5, f: 6",
    inputs="QN: [e, h, p], C: [l, m], WK: [l, h, e], WV: [l, h, f], QR: [l, h, p], KR: [l, m]",
)
t(
    "layernorm-matmul",
    """
MU[p] = mean[n](X[n, p])
D[n, p] = X[n, p] - MU[p]
VAR[p] = mean[n](D[n, p] * D[n, p])
Y[n, p] = D[n, p] * rsqrt(VAR[p] + 0.00001) * G[n] + B[n]
AV[q, p] = Y[n, p] * W[n, q]
""",
    ranks="p: 8, n: 32, q: 6",
    inputs="X: [n, p], G: [n], B: [n], W: [n, q]",
)
t(
    "rmsnorm-matmul",
    """
MS[p] = mean[n](X[n, p] * X[n, p])
Y[n, p] = X[n, p] / sqrt(MS[p] + 0.00001) * G[n]
AV[q, p] = Y[n, p] * W[n, q]
""",
    ranks="p: 8, n: 32, q: 6",
    inputs="X: [n, p], G: [n], W: [n, q]",
)
t(
    "rmsnorm-swiglu",
    """
MS[p] = mean[n](X[n, p] * X[n, p])
Y[n, p] = X[n, p] * rsqrt(MS[p] + 0.00001) * G[n]
GATE[h, p] = Y[n, p] * WG[n, h]
UP[h, p] = Y[n, p] * WU[n, h]
H1[h, p] = silu(GATE[h, p]) * UP[h, p]
AV[q, p] = H1[h, p] * WD[h, q]
""",
    ranks="p: 8, n: 32, h: 20, q: 6",
    inputs="X: [n, p], G: [n], WG: [n, h], WU: [n, h], WD: [h, q]",
)
t(
    "absmax-matmul",
    """
AM[p] = max[n](abs(X[n, p]))
XS[n, p] = X[n, p] * 127 / AM[p]
AV[q, p] = sum[n](XS[n, p] * W[n, q])
Z[q, p] = AV[q, p] * AM[p] / 127
""",
    ranks="p: 8, n: 32, q: 6",
    inputs="X: [n, p], W: [n, q]",
    outputs="AV, Z",
)
t("entropy", SOFT + "AV[p] = sum[m](-A[m, p] * log(A[m, p]))", inputs="Q: [e, p], K: [e, m]")
t(
    "lse-recompute",
    """
QK[m, p] = Q[e, p] * K[e, m]
GM[p] = max[m](QK[m, p])
SD[p] = sum[m](exp(QK[m, p] - GM[p]))
L[p] = log(SD[p]) + GM[p]
AV[f, p] = sum[m](exp(QK[m, p] - L[p]) * V[f, m])
""",
)
t(
    "soft-routing",
    """
GM[p] = max[n](X[n, p])
SN[n, p] = exp(X[n, p] - GM[p])
SD[p] = sum[n](SN[n, p])
A[n, p] = SN[n, p] / SD[p]
IDX[s, p] = topk[n -> s](A[n, p])
T[s, p] = A[IDX[s, p], p]
TS[p] = sum[s](T[s, p])
Y[s, p] = T[s, p] / TS[p]
AV[f, p] = sum[s](Y[s, p] * V[f, IDX[s, p]])
""",
    ranks="p: 8, n: 32, s: 3, f: 4",
    inputs="X: [n, p], V: [f, n]",
)
t("unreduced", SOFT, outputs="A", inputs="Q: [e, p], K: [e, m]")
t("column-mean", SOFT + "CM[m] = mean[p](A[m, p])", outputs="CM", inputs="Q: [e, p], K: [e, m]")
t(
    "agent",
    """
S1[m, a] = G[e, a] * K[e, m]
M1X[a] = max[m](S1[m, a])
E1[m, a] = exp(S1[m, a] - M1X[a])
D1[a] = sum[m](E1[m, a])
A1[m, a] = E1[m, a] / D1[a]
VA[f, a] = A1[m, a] * V[f, m]
S2[a, p] = Q[e, p] * G[e, a]
M2X[p] = max[a](S2[a, p])
E2[a, p] = exp(S2[a, p] - M2X[p])
D2[p] = sum[a](E2[a, p])
A2[a, p] = E2[a, p] / D2[p]
AV[f, p] = A2[a, p] * VA[f, a]
""",
    ranks=HEAD + ", a: 12",
    inputs=QKV + ", G: [e, a]",
)
t(
    "moh",
    """
QK[h, m, p] = Q[e, h, p] * K[e, h, m]
GM[h, p] = max[m](QK[h, m, p])
SN[h, m, p] = exp(QK[h, m, p] - GM[h, p])
SD[h, p] = sum[m](SN[h, m, p])
A[h, m, p] = SN[h, m, p] / SD[h, p]
AV[f, p] = sum[h, m](G[h, p] * A[h, m, p] * V[f, h, m])
""",
    ranks=HEAD + ", h: 3",
    inputs="Q: [e, h, p], K: [e, h, m], V: [f, h, m], G: [h, p]",
)
t(
    "differential",
    """
QK[s, m, p] = Q[s, e, p] * K[s, e, m]
GM[s, p] = max[m](QK[s, m, p])
SN[s, m, p] = exp(QK[s, m, p] - GM[s, p])
SD[s, p] = sum[m](SN[s, m, p])
A[s, m, p] = SN[s, m, p] / SD[s, p]
DA[m, p] = A[0, m, p] - LAM * A[1, m, p]
AV[f, p] = DA[m, p] * V[f, m]
""",
    ranks=HEAD + ", s: 2",
    inputs="Q: [s, e, p], K: [s, e, m], V: [f, m], LAM: []",
)
t(
    "linear",
    """
S[m, p] = Q[e, p] * K[e, m]
AV[f, p] = S[m, p] * V[f, m]
""",
    ranks="p: 1024, m: 1024, e: 16, f: 16",
)
t(
    "linear-norm",
    """
FQ[e, p] = elu(Q[e, p]) + 1
FK[e, m] = elu(K[e, m]) + 1
S[m, p] = FQ[e, p] * FK[e, m]
Z[p] = sum[m](S[m, p])
A[m, p] = S[m, p] / Z[p]
AV[f, p] = A[m, p] * V[f, m]
""",
    ranks="p: 1024, m: 1024, e: 16, f: 16",
)
t(
    "linear-causal",
    """
S[m, p] = Q[e, p] * K[e, m] where m <= p
AV[f, p] = S[m, p] * V[f, m]
""",
    ranks="p: 1024, m: 1024, e: 16, f: 16",
)
t(
    "softmax-direct",
    """
QK[m, p] = Q[e, p] * K[e, m]
SD[p] = sum[m](exp(QK[m, p]))
AV[f, p] = sum[m](exp(QK[m, p]) / SD[p] * V[f, m])
""",
)
t(
    "lse-naive",
    """
QK[m, p] = Q[e, p] * K[e, m]
SD[p] = sum[m](exp(QK[m, p]))
AV[p] = log(SD[p])
""",
    inputs="Q: [e, p], K: [e, m]",
)
t(
    "unit-rows-matmul",
    """
NN[p] = sum[n](X[n, p] * X[n, p])
XN[n, p] = X[n, p] / sqrt(NN[p])
AV[q, p] = XN[n, p] * W[n, q]
""",
    ranks="p: 8, n: 32, q: 6",
    inputs="X: [n, p], W: [n, q]",
)
t(
    "third-central-moment",
    """
MU[p] = mean[n](X[n, p])
D[n, p] = X[n, p] - MU[p]
AV[p] = mean[n](D[n, p] * D[n, p] * D[n, p])
""",
    ranks="p: 8, n: 32",
    inputs="X: [n, p]",
)
t(
    "qk-norm",
    """
NQ[p] = sum[e](Q[e, p] * Q[e, p])
NK[m] = sum[e](K[e, m] * K[e, m])
QK[m, p] = Q[e, p] * rsqrt(NQ[p]) * K[e, m] * rsqrt(NK[m])
GM[p] = max[m](QK[m, p])
SN[m, p] = exp(QK[m, p] - GM[p])
SD[p] = sum[m](SN[m, p])
A[m, p] = SN[m, p] / SD[p]
AV[f, p] = A[m, p] * V[f, m]
""",
)

t("softmax-max", SOFT + "AV[p] = max[m](A[m, p] * 3)", inputs="Q: [e, p], K: [e, m]")
t("softmax-max2", SOFT + "AV[p] = max[m](A[m, p] * abs(R[m]))", inputs="Q: [e, p], K: [e, m], R: [m]")
t("softmax-mean", SOFT + "AV[f, p] = mean[m](A[m, p] * V[f, m])")
t(
    "gqa",
    """
QK[h, m, p] = Q[e, h, p] * K[e, h // 2, m] / sqrt(E) where m <= p
GM[h, p] = max[m](QK[h, m, p])
SN[h, m, p] = exp(QK[h, m, p] - GM[h, p])
SD[h, p] = sum[m](SN[h, m, p])
A[h, m, p] = SN[h, m, p] / SD[h, p]
AV[f, h, p] = A[h, m, p] * V[f, h // 2, m]
""",
    ranks=HEAD + ", h: 4, g: 2",
    inputs="Q: [e, h, p], K: [e, g, m], V: [f, g, m]",
)
t(
    "topk-attn",
    """
QK[m, p] = Q[e, p] * K[e, m]
IDX[s, p] = topk[m -> s](QK[m, p])
LG[s, p] = QK[IDX[s, p], p]
GM[p] = max[s](LG[s, p])
SN[s, p] = exp(LG[s, p] - GM[p])
SD[p] = sum[s](SN[s, p])
A[s, p] = SN[s, p] / SD[p]
AV[f, p] = sum[s](A[s, p] * V[f, IDX[s, p]])
""",
    ranks=HEAD + ", s: 4",
)
t(
    "exp2",
    """
QK[m, p] = Q[e, p] * K[e, m]
GM[p] = max[m](QK[m, p])
SN[m, p] = exp2(QK[m, p] - GM[p])
SD[p] = sum[m](SN[m, p])
A[m, p] = SN[m, p] / SD[p]
AV[f, p] = A[m, p] * V[f, m]
""",
)
t(
    "softcap-alibi",
    """
QK[m, p] = Q[e, p] * K[e, m]
S[m, p] = 30 * tanh(QK[m, p] / 30) - 0.1 * abs(p - m) where m <= p
GM[p] = max[m](S[m, p])
SN[m, p] = exp(S[m, p] - GM[p])
SD[p] = sum[m](SN[m, p])
A[m, p] = SN[m, p] / SD[p]
AV[f, p] = A[m, p] * V[f, m]
""",
    ranks="p: 64, m: 64, e: 16, f: 16",
)
t(
    "global-temp",
    """
QK[m, p] = Q[e, p] * K[e, m]
GM[p] = max[m](QK[m, p])
SN[m, p] = exp((QK[m, p] - GM[p]) * T[p])
SD[p] = sum[m](SN[m, p])
A[m, p] = SN[m, p] / SD[p] * G[m]
AV[f, p] = A[m, p] * V[f, m]
""",
    inputs=QKV + ", T: [p], G: [m]",
)
t(
    "kl",
    """
GA[p] = max[n](X[n, p])
EA[n, p] = exp(X[n, p] - GA[p])
DA[p] = sum[n](EA[n, p])
PA[n, p] = EA[n, p] / DA[p]
GB[p] = max[n](Y[n, p])
EB[n, p] = exp(Y[n, p] - GB[p])
DB[p] = sum[n](EB[n, p])
PB[n, p] = EB[n, p] / DB[p]
AV[p] = sum[n](PA[n, p] * (log(PA[n, p]) - log(PB[n, p])))
""",
    ranks="p: 8, n: 32",
    inputs="X: [n, p], Y: [n, p]",
)
t(
    "linear-causal-heads",
    """
S[h, m, p] = Q[e, h, p] * K[e, h, m] where m <= p
Z[h, p] = sum[m](S[h, m, p])
AV[f, h, p] = sum[m](S[h, m, p] * V[f, h, m] / Z[h, p])
""",
    ranks="p: 512, m: 512, e: 8, f: 8, h: 2",
    inputs="Q: [e, h, p], K: [e, h, m], V: [f, h, m]",
)

t(
    "two-ranks",
    """
GM[p] = max[i, j](S[i, j, p])
SN[i, j, p] = exp(S[i, j, p] - GM[p])
SD[p] = sum[i, j](SN[i, j, p])
A[i, j, p] = SN[i, j, p] / SD[p]
AV[f, p] = A[i, j, p] * V[f, i, j]
""",
    ranks="i: 32, j: 16, p: 8, f: 4",
    inputs="S: [i, j, p], V: [f, i, j]",
)
t(
    "after-a-barrier",
    """
NG[g] = sum[e, m](K[g, e, m])
QK[h, p, m] = Q[h, e, p] * K[h // 2, e, m] / sqrt(E) + NG[h // 2]
GM[h, p] = max[m](QK[h, p, m])
SN[h, p, m] = exp(QK[h, p, m] - GM[h, p])
SD[h, p] = sum[m](SN[h, p, m])
A[h, p, m] = SN[h, p, m] / SD[h, p]
AV[h, f, p] = A[h, p, m] * V[h // 2, f, m]
""",
    ranks=HEAD + ", h: 4, g: 2",
    inputs="Q: [h, e, p], K: [g, e, m], V: [g, f, m]",
)
t(
    "one-softmax-after-another",
    SOFT
    + """
B[f, p] = A[m, p] * V[f, m]
T[m, p] = B[f, p] * V[f, m]
HM[p] = max[m](T[m, p])
TN[m, p] = exp(T[m, p] - HM[p])
TD[p] = sum[m](TN[m, p])
C[m, p] = TN[m, p] / TD[p]
AV[f, p] = C[m, p] * V[f, m]
""",
)
t(
    "groups-known-after-a-pass",
    SOFT
    + """
CS[m] = sum[p](A[m, p])
HOT[m] = CS[m] > 1
AS[p] = sum[m](select(HOT[m], A[m, p], 0))
AV[f, p] = A[m, p] * select(HOT[m], 0.4, AS[p]) * V[f, m]
""",
)
t(
    "difference-under-a-mask",
    """
S1[m, p] = Q[e, p] * K[e, m] where m <= p
S2[m, p] = R[e, p] * K[e, m] where m <= p
G1[p] = max[m](S1[m, p])
G2[p] = max[m](S2[m, p])
N1[m, p] = exp(S1[m, p] - G1[p])
N2[m, p] = exp(S2[m, p] - G2[p])
D1[p] = sum[m](N1[m, p])
D2[p] = sum[m](N2[m, p])
A[m, p] = N1[m, p] / D1[p] - LAM * N2[m, p] / D2[p]
AV[f, p] = A[m, p] * V[f, m]
""",
    inputs=QKV + ", R: [e, p], LAM: []",
)
DECAYS = {
    "exp": "D[h, m, p] = exp(-R[h] * (p - m)) where m <= p",
    "pow": "D[h, m, p] = pow(R[h], p - m) where m <= p",
    "cumulative": "C[0, h] = 0\nC[m+1, h] = C[m, h] - abs(G[h, m])\n"
    "D[h, m, p] = exp(C[p + 1, h] - C[m + 1, h]) where m <= p",
}
for _name, _decay in DECAYS.items():
    t(
        f"causal-decay-{_name}",
        f"""
R[h] = 1 / (2 + h)
S[h, m, p] = Q[h, e, p] * K[h, e, m] where m <= p
{_decay}
A[h, m, p] = S[h, m, p] * D[h, m, p]
AV[h, f, p] = B[h, f] * A[h, m, p] * V[h, f, m]
""".replace("R[h] = 1 / (2 + h)\n", "" if _name == "cumulative" else "R[h] = 1 / (2 + h)\n"),
        ranks="p: 512, m: p, e: 8, f: 8, h: 2",
        inputs="Q: [h, e, p], K: [h, e, m], V: [h, f, m], B: [h, f]" + (", G: [h, m]" if _name == "cumulative" else ""),
    )
t("softmax-max3", SOFT + "AV[f, p] = max[m](A[m, p] * V[f, m])")
t("softmax-min-mask", SOFT.replace("K[e, m]", "K[e, m] where KEEP[m, p]") + "AV[f, p] = min[m](A[m, p] * V[f, m])",
  inputs=QKV + ", KEEP: [m, p]")  # fmt: skip
JOINT = """
X[i, p] = 2 * S[i, p]
MS[p] = max[i](X[i, p])
MT[p] = max[j](T[j, p])
GM[p] = max(MS[p], MT[p])
NS[i, p] = exp(X[i, p] - GM[p])
NT[j, p] = exp(T[j, p] - GM[p])
DS[p] = sum[i](NS[i, p])
DT[p] = sum[j](NT[j, p])
AV[p] = DS[p] / (DS[p] + DT[p])
"""
t("joint", JOINT, ranks="m: 9, i: 5, j: 4, p: 3", inputs="S: [m, p], T: [j, p]")

#: name, rank, passes as written (None: left to the analysis of passes), passes of what is derived
EXPECTED = [
    ("bias-after-softmax", "m", 3, 1),
    ("gated", "m", None, 1),
    ("gated-renorm", "m", 4, 1),
    ("group-reweighted", "m", 4, 1),
    ("var-redistribution", "m", 4, 1),
    ("select-reweighted", "m", 4, 1),
    ("causal", "m", 3, 1),
    ("window", "m", 3, 1),
    ("keep-mask", "m", 3, 1),
    ("scaled", "m", 3, 1),
    ("scale-in-exp", "m", 3, 1),
    ("sink", "m", 3, 1),
    ("mla", "m", 3, 1),
    ("mla-absorbed", "m", 3, 1),
    ("layernorm-matmul", "n", 3, 1),
    ("rmsnorm-matmul", "n", 2, 1),
    ("rmsnorm-swiglu", "n", 2, 1),
    ("absmax-matmul", "n", 2, 1),
    ("entropy", "m", 3, 1),
    ("lse-recompute", "m", 3, 1),
    ("soft-routing", "n", None, 2),
    ("unreduced", "m", 3, 2),
    ("column-mean", "m", 3, 2),
    ("agent", "m", 3, 1),
    ("moh", "m", 3, 1),
    ("differential", "m", 3, 1),
    ("linear-norm", "m", 2, 1),
    ("softmax-direct", "m", 2, 1),
    ("unit-rows-matmul", "n", 2, 1),
    ("third-central-moment", "n", 2, 1),
    ("qk-norm", "m", 3, 1),
    ("softmax-max", "m", 3, 1),
    ("softmax-max2", "m", 3, 1),
    ("softmax-mean", "m", 3, 1),
    ("gqa", "m", 3, 1),
    ("topk-attn", "m", 4, 2),
    ("exp2", "m", 3, 1),
    ("softcap-alibi", "m", 3, 1),
    ("global-temp", "m", 3, 1),
    ("kl", "n", 3, 1),
    ("linear-causal-heads", "m", 2, 1),
    ("two-ranks", "i", 3, 1),
    ("two-ranks", "j", 3, 1),
    ("after-a-barrier", "m", 4, 2),
    ("one-softmax-after-another", "m", 6, 2),
    ("groups-known-after-a-pass", "m", 4, 2),
    ("difference-under-a-mask", "m", 3, 1),
    ("softmax-max3", "m", 3, 1),
    ("softmax-min-mask", "m", 3, 1),
    ("joint", "i", 2, 1),
    ("joint", "j", 2, 1),
]

RANKS = Names(("m", "p", "e"))


def expr(text):
    return parse_expression(text, RANKS, NOWHERE)


def shown(poly):
    return format_expr(to_expr(poly))


def simple(equations, **more):
    given = {"ranks": "p: 8, m: 32, f: 4", "inputs": "X: [m, p], V: [f, m]", "outputs": "Z"} | more
    return cascade_of(equations, **given)


def check_derived(cascade, found):
    """What must hold of every result."""
    check = Check(cascade)
    for stage in found.stages:
        again = parse_cascade(format_cascade(stage))
        assert format_einsums(again) == format_einsums(stage)
        assert list(stage.outputs) == list(cascade.outputs)
        assert set(stage.inputs) <= set(cascade.inputs)
        assert check.same_numbers(stage) is None
        assert not set(stage.tensors) & {r.upper() for r in stage.ranks}
    after = passes(found.cascade, extents_of(found.cascade)).passes
    assert {r: after[r] for r in found.passes_after} == found.passes_after


# Normal forms


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("A + A - 2 * A", "0"),
        ("(A + B) * (A - B)", "A * A - B * B"),
        ("A / B * B", "A"),
        ("exp(A) * exp(B)", "exp(A + B)"),
        ("exp(A - B) / exp(C - B)", "exp(A - C)"),
        ("exp(A + log(B))", "B * exp(A)"),
        ("log(A * exp(B))", "B + log(A)"),
        ("log(exp(A))", "A"),
        ("sqrt(A) * sqrt(A)", "A"),
        ("A * rsqrt(B)", "A * rsqrt(B)"),
        ("A / sqrt(B)", "A * rsqrt(B)"),
        ("abs(A * 2)", "2 * abs(A)"),
        ("abs(A * exp(B))", "abs(A) * exp(B)"),
        ("recip(A) * A", "1"),
        ("1 / (A * exp(C) + B * exp(C))", "exp(-C) / (A + B)"),
        ("A / 3", "A / 3"),
        ("silu(A + A)", "silu(2 * A)"),
        ("-A", "-A"),
    ],
)
def test_expanded_form(text, normal):
    assert shown(Normal()(expr(text))) == normal


def test_a_kept_sum_stays_one_factor():
    assert shown(Normal(keep=lambda _: True)(expr("(A + B) * C"))) == "(A + B) * C"
    assert shown(Normal()(expr("(A + B) * C"))) == "A * C + B * C"


def test_a_choice_is_distributed_where_asked():
    form = Normal(distribute=lambda _: True)
    assert shown(form(expr("select(C, A, A)"))) == "A"
    assert shown(form(expr("select(C, A, B)"))) == "A * select(C, 1, 0) + B * select(C, 0, 1)"
    assert shown(form(expr("select(C, A, B) * select(C, D, 2)"))) == "A * D * select(C, 1, 0) + 2 * B * select(C, 0, 1)"
    assert shown(form(expr("select(C, A + D, A)"))) == "A + D * select(C, 1, 0)"


# Single identities, each with its side condition

SOFTMAX = """
    G[p]    = max[m](X[m, p])
    S[m, p] = exp(X[m, p] - G[p])
    D[p]    = sum[m](S[m, p])
"""


def fiber_of(text="Z[p] = sum[m](S[m, p] / D[p])"):
    return Fiber(simple(SOFTMAX + "    " + text, inputs="X: [m, p]"), "m")


def test_summaries_late_tensors_and_stabilisers():
    fiber = fiber_of()
    assert fiber.summaries == {"G", "D", "Z"}
    assert fiber.late == {"S"}
    assert fiber.stabilisers == {"G"}


def one_term(fiber, text):
    poly = expanded_form(fiber, expr(text))
    assert len(poly.terms) == 1
    return poly.terms[0]


def test_a_factor_that_lacks_the_rank_leaves_a_sum():
    fiber = fiber_of()
    split = split_product(fiber, *one_term(fiber, "3 * X[m, p] / D[p]"))
    assert format_expr(term_expr(split.inside)) == "X[m, p]"
    assert format_expr(term_expr(split.outside)) == "1 / D[p]"
    assert split.coefficient == 3


def test_an_exponential_of_a_maximum_stays_with_the_exponential_it_steadies():
    fiber = fiber_of()
    split = split_product(fiber, *one_term(fiber, "exp(X[m, p] - G[p] - log(D[p]))"))
    assert format_expr(term_expr(split.inside)) == "exp(X[m, p] - G[p])"
    assert format_expr(term_expr(split.outside)) == "1 / D[p]"
    assert split.held == {"p"}
    alone = split_product(fiber, *one_term(fiber, "X[m, p] * exp(-G[p])"))
    assert format_expr(term_expr(alone.outside)) == "exp(-G[p])"


@pytest.mark.parametrize("text", ["silu(X[m, p] * D[p])", "exp(X[m, p] * D[p])", "1 / (X[m, p] + D[p])"])
def test_what_does_not_factor_is_refused_with_a_reason(text):
    fiber = fiber_of()
    with pytest.raises(StuckError, match="does not factor"):
        split_product(fiber, *one_term(fiber, text))


@pytest.mark.parametrize(
    ("text", "op", "inside", "outside", "added"),
    [
        ("X[m, p] - D[p]", "max", "X[m, p]", "1", "-D[p]"),
        ("X[m, p] / D[p]", "max", "X[m, p]", "1 / D[p]", "0"),
        ("X[m, p] * exp(G[p]) + 2 * exp(G[p])", "max", "X[m, p]", "exp(G[p])", "2 * exp(G[p])"),
    ],
)
def test_what_leaves_a_maximum(text, op, inside, outside, added):
    fiber = fiber_of()
    pulled = pull_from_extreme(fiber, op, expanded_form(fiber, expr(text)))
    assert (shown(pulled.inside), shown(pulled.outside), shown(pulled.added)) == (inside, outside, added)
    assert pulled.op == op


def test_a_factor_of_unknown_sign_stays_in_a_maximum():
    fiber = Fiber(simple("D[p] = sum[m](X[m, p])\nZ[p] = max[m](X[m, p] * D[p])", inputs="X: [m, p]"), "m")
    with pytest.raises(StuckError, match="sign"):
        pull_from_extreme(fiber, "max", expanded_form(fiber, expr("X[m, p] * D[p]")))


def test_selection_sees_through_increasing_functions():
    fiber = fiber_of()
    assert shown(monotone_part(fiber, expanded_form(fiber, expr("exp(X[m, p] - G[p]) / D[p]")))) == "X[m, p]"
    assert shown(monotone_part(fiber, expanded_form(fiber, expr("-2 * X[m, p]")))) == "-X[m, p]"


def test_the_correction_of_a_rescaled_accumulator():
    fiber = fiber_of()
    term, _ = one_term(fiber, "exp(X[m, p] - G[p])")
    assert shown(exponent_that_waits(fiber, term)) == "-G[p]"
    assert format_expr(correction(Normal()(expr("-A")), Normal()(expr("-B")))) == "exp(A - B)"


def test_signs():
    cascade = simple(SOFTMAX + "    Z[p] = D[p]", inputs="X: [m, p]")
    assert nonnegative(cascade, expr("D[p] * exp(X[m, p]) + abs(X[m, p])"))
    assert not nonnegative(cascade, expr("X[m, p]"))
    assert not nonnegative(cascade, expr("-D[p]"))


def test_the_best_order_of_a_product_of_three():
    order = best_order(
        [frozenset("pe"), frozenset("em"), frozenset("fm")], frozenset("pf"), {"p": 64, "m": 64, "e": 4, "f": 4}
    )
    assert order.steps == ((1, 2), (0, 3))
    assert order.cost == 64 * 4 * 4 * 2


def test_tiles_need_a_rank_that_is_whole():
    with pytest.raises(StuckError, match="split already"):
        tiled(Fiber(load_cascade("attention-1pass"), "m"))


def test_poly_constants():
    assert Poly(((ONE, Fraction(2)),)) == Normal()(expr("1 + 1"))
    assert Normal()(expr("A")).terms[0][0] == Mono(((expr("A"), Fraction(1)),))


# Targets


@pytest.mark.parametrize(("name", "rank", "before", "after"), EXPECTED, ids=[f"{e[0]}-{e[1]}" for e in EXPECTED])
def test_targets(name, rank, before, after):
    cascade = TARGETS[name]
    found = derive(cascade)
    check_derived(cascade, found)
    if before is not None:
        assert found.passes_before[rank] == before
    assert found.passes_before[rank] > after
    assert found.passes_after[rank] == after
    assert found.steps


@pytest.mark.parametrize(
    ("name", "rank", "after", "stages"),
    [
        ("attention-3pass", "m", 1, [2, 1]),
        ("attention-2pass-deferred", "m", 1, [1]),
        ("attention-2pass-localmax", "m", 1, [1]),
        ("attention-unstable", "m", 1, [1]),
        ("log-sum-exp", "n", 1, [1]),
        ("cross-entropy", "n", 1, [1]),
        ("mean-variance", "n", 1, [1]),
        ("layer-norm", "n", 2, [2]),
        ("batch-norm", "n", 2, [2]),
        ("layer-3pass", "m", 1, [2, 1]),
    ],
)
def test_library_cascades(name, rank, after, stages):
    cascade = load_cascade(name)
    found = derive(cascade, rank=rank)
    check_derived(cascade, found)
    assert found.passes_after[rank] == after
    assert [passes(s, extents_of(s)).passes[rank] for s in found.stages] == stages
    if cascade.reference:
        assert (compare(found.cascade).max_rel_error or 0) < 1e-12


@pytest.mark.parametrize("name", sorted(names("cascades")))
def test_every_library_cascade_can_be_asked(name):
    cascade = load_cascade(name)
    found = derive(cascade)
    check_derived(cascade, found)
    assert all(found.passes_after[r] <= n for r, n in found.passes_before.items() if r in found.passes_after)


def test_the_intermediate_stage_is_deferred_division():
    two, one = derive(load_cascade("attention-3pass")).stages
    assert "AV[f, p]  = SNV[f, p] / SD[p]" in format_einsums(two)
    assert "max(RGM[m1, p], LGM[m1, p])" in format_einsums(one)
    assert one.split == {"m": ("m1", "m0")}


def test_the_naive_form_has_a_maximum_only_if_asked():
    cascade = load_cascade("attention-unstable")
    plain, stable = derive(cascade), derive(cascade, stable=True)
    assert "max" not in format_einsums(plain.cascade)
    assert plain.passes_after["m"] == stable.passes_after["m"] == 1
    check_derived(cascade, stable)
    sizes = {"b": 1, "h": 1, "p": 3, "m": 20, "m0": 4, "e": 8, "f": 2}
    inputs = random_inputs(cascade, {r: n for r, n in sizes.items() if r != "m0"})
    inputs["Q"] = inputs["Q"] * 1e4
    assert not np.isfinite(run(cascade, inputs)["AV"]).all()
    assert np.isfinite(run(stable.cascade, inputs, {"m0": 4})["AV"]).all()


@pytest.mark.parametrize("name", [n for n, rank, _, after in EXPECTED if rank == "m" and after == 1])
def test_chunks_that_merge(name):
    cascade = TARGETS[name]
    found = derive(cascade, merge="chunks", rank="m")
    check_derived(cascade, found)
    assert found.passes_after["m"] == 1


@pytest.mark.parametrize("name", ["softmax-direct", "lse-naive", "agent", "differential", "linear-norm"])
def test_stable_results(name):
    cascade = TARGETS[name]
    found = derive(cascade, stable=True)
    check_derived(cascade, found)
    assert found.passes_after["m"] == 1


def test_linear_attention_multiplies_keys_and_values_first():
    for name, times in [("linear", 60), ("linear-norm", 50)]:
        found = derive(TARGETS[name])
        check_derived(TARGETS[name], found)
        assert found.points_after * times < found.points_before
        assert "associative" in found.steps[-1]


@pytest.mark.parametrize(("name", "times"), [("linear-causal", 12), ("linear-causal-heads", 5)])
def test_causal_linear_attention_in_chunks(name, times):
    found = derive(TARGETS[name])
    check_derived(TARGETS[name], found)
    assert found.points_after * times < found.points_before
    assert "where m0 <= p0" in format_einsums(found.cascade)
    sizes = {"p": 23, "m": 23, "m0": 4, "e": 3, "f": 2}
    inputs = random_inputs(TARGETS[name], {"h": 2, **{r: n for r, n in sizes.items() if r != "m0"}})
    expected = run(TARGETS[name], inputs)["AV"]
    np.testing.assert_allclose(run(found.cascade, inputs, {"m0": 4})["AV"], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", DECAYS)
def test_causal_linear_attention_with_decay_in_chunks(name):
    """Against the recurrence over single steps: St = decay * St + K x V, of which a query reads all."""
    cascade = TARGETS[f"causal-decay-{name}"]
    found = derive(cascade)
    check_derived(cascade, found)
    assert 4 * found.points_after < found.points_before
    sizes = {"p": 23, "e": 3, "f": 2, "h": 2}
    x = random_inputs(cascade, extents_of(cascade, sizes))
    rate = 1 / (2 + np.arange(2))
    fixed = {"exp": np.exp(-rate), "pow": rate}
    decay = np.exp(-np.abs(x["G"])) if name == "cumulative" else np.tile(fixed[name][:, None], (1, 23))
    state, expected = np.zeros((2, 3, 2)), np.zeros((2, 2, 23))
    for i in range(23):
        state = decay[:, i, None, None] * state + np.einsum("he,hf->hef", x["K"][..., i], x["V"][..., i])
        expected[..., i] = x["B"] * np.einsum("he,hef->hf", x["Q"][..., i], state)
    for chunk in (1, 4, 23):
        np.testing.assert_allclose(run(found.cascade, x, {"m0": chunk})["AV"], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "times"),
    [("retention-parallel", 9), ("lightning-attention", 20), ("transnormer-gla", 20), ("ssd-mamba2-quadratic", 10)],
)
def test_quadratic_forms_of_the_library_in_chunks(name, times):
    found = derive(load_cascade(name))
    assert found.points_after * times < found.points_before
    assert (compare(found.cascade).max_rel_error or 0) < 1e-9


def test_the_state_of_a_chunk_decays_as_published():
    """exp(-r * p0) for queries, exp(-r * (C - m0)) for keys, exp(-r * C) from chunk to chunk."""
    lines = format_einsums(derive(load_cascade("lightning-attention")).cascade).splitlines()
    made = {left.split("[")[0]: right for left, right in (" ".join(line.split()).split(" = ", 1) for line in lines)}
    assert made["DL"] == "exp(LR[h] * m0 - LR[h] * p0) where m0 <= p0"
    assert made["DQ"] == "exp(-(LR[h] * p0))"
    assert made["DK"] == "exp(LR[h] * m0 - LR[h] * M0)"
    assert made["DC"] == "exp(-(LR[h] * M0))"


def test_chunks_of_queries_and_keys_of_different_number():
    cascade = cascade_of(
        "S[m, p] = Q[e, p] * K[e, m] where m <= p\nAV[f, p] = S[m, p] * exp(-0.1 * (p - m)) * V[f, m]",
        ranks="p: 1024, m: 512, e: 8, f: 8", inputs=QKV, outputs="AV",
    )  # fmt: skip
    found = derive(cascade)
    check_derived(cascade, found)
    assert 2 * found.points_after < found.points_before
    for p, m in ((23, 9), (9, 23)):
        inputs = random_inputs(cascade, {"p": p, "m": m, "e": 3, "f": 2})
        made = run(found.cascade, inputs, {"m0": 4})["AV"]
        np.testing.assert_allclose(made, run(cascade, inputs)["AV"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("decay", ["exp(-0.1 * p * m)", "exp(0.2 * m - 0.1 * p)", "exp(-B[m, p])", "pow(p + 1, p - m)"])
def test_what_is_no_decay_stays_quadratic(decay):
    cascade = cascade_of(
        f"S[m, p] = Q[e, p] * K[e, m] where m <= p\nAV[f, p] = S[m, p] * {decay} * V[f, m]",
        ranks="p: 512, m: p, e: 8, f: 8", inputs=QKV + ", B: [m, p]" * ("B" in decay), outputs="AV",
    )  # fmt: skip
    assert derive(cascade).cascade == cascade


def test_agent_attention_makes_one_pass_over_either_rank():
    found = derive(TARGETS["agent"])
    assert (found.passes_after["m"], found.passes_after["a"]) == (1, 1)


# Fibers of which nothing is present


def values(cascade, inputs, sizes, tile):
    """An output of a cascade and of what is derived from it, at some size of tiles."""
    found = derive(cascade)
    (output,) = cascade.outputs
    given = {r: n for r, n in {**sizes, **tile}.items() if r in found.cascade.ranks}
    kept = {n: a for n, a in inputs.items() if n in found.cascade.inputs}
    return run(cascade, inputs, sizes)[output], run(found.cascade, kept, given)[output], found


def test_a_row_that_a_mask_empties_is_zero_as_it_is_before():
    cascade = load_cascade("masked-attention")
    sizes = {"b": 1, "h": 1, "p": 5, "m": 7, "e": 3, "f": 2}
    inputs = random_inputs(cascade, extents_of(cascade, sizes))
    inputs["KEEP"][..., 1, :] = False
    written, made, found = values(cascade, inputs, sizes, {"m0": 3})
    assert (written[..., 1] == 0).all()
    np.testing.assert_allclose(made, written, rtol=1e-12)
    assert "O[f, p]            = select(RSD[M1, p] == 0, 0, RSNV[M1, f, p] / RSD[M1, p])" in format_einsums(
        found.cascade
    )
    assert "O: where no point of m is present (SD[p] == 0), it is 0, as a sum over nothing is." in found.steps


@pytest.mark.parametrize("op", ["max", "min"])
def test_an_extreme_of_nothing_stays_infinite(op):
    cascade = TARGETS["softmax-min-mask"]
    text = format_einsums(cascade).replace("min[m]", f"{op}[m]")
    cascade = cascade_of(text, ranks=HEAD, inputs=QKV + ", KEEP: [m, p]", outputs="AV")
    sizes = {"p": 3, "m": 7, "e": 2, "f": 2}
    inputs = random_inputs(cascade, sizes)
    inputs["KEEP"][:, 1] = False
    written, made, found = values(cascade, inputs, sizes, {"m0": 3})
    assert np.isinf(written[:, 1]).all()
    np.testing.assert_allclose(made, written, rtol=1e-12)
    assert found.passes_after["m"] == 1


@pytest.mark.parametrize(
    ("where", "ranks", "sure"),
    [
        ("", "p: 8, m: 8", True),
        ("where m <= p", "p: 8, m: 32", True),  # the first one
        ("where m < p", "p: 8, m: 8", False),
        ("where m <= p and p - m < 4", "p: 8, m: p", True),  # the one at p
        ("where m <= p and p - m < 4", "p: 8, m: 8", False),  # p may be beyond the end of m
        ("where abs(m - p) <= 2", "p: 8, m: p", True),
        ("where p // 4 == m // 4", "p: 8, m: p", True),
        ("where KEEP[m, p]", "p: 8, m: 8", False),
        ("where KEEP[m, p] or m == 0", "p: 8, m: 8", True),
        ("where p >= 3", "p: 8, m: 8", True),  # it does not concern m: the result is absent, not empty
    ],
)
def test_a_division_is_guarded_where_a_row_may_be_empty(where, ranks, sure):
    cascade = simple(
        f"S[m, p] = exp(X[m, p]) {where}\nD[p] = sum[m](S[m, p])\nZ[f, p] = sum[m](S[m, p] / D[p] * V[f, m])",
        ranks=f"{ranks}, f: 4",
        inputs="X: [m, p], V: [f, m]" + (", KEEP: [m, p]" if "KEEP" in where else ""),
    )
    found = derive(cascade)
    check_derived(cascade, found)
    assert found.passes_after["m"] == 1
    assert ("select" not in format_einsums(found.cascade)) == sure


@pytest.mark.parametrize(
    ("index", "sure"), [("p + w - W // 2", True), ("p - w", True), ("p + w", True), ("p - w - 1", False)]
)
def test_the_window_around_an_element_holds_it(index, sure):
    cascade = simple(
        f"S[w, p] = exp(X[{index}])\nD[p] = sum[w](S[w, p])\nZ[f, p] = sum[w](S[w, p] / D[p] * V[f, {index}])",
        ranks="p: 16, w: 5, f: 4", inputs="X: [p], V: [f, p]",
    )  # fmt: skip
    found = derive(cascade)
    check_derived(cascade, found)
    assert found.passes_after["w"] == 1
    assert ("select" not in format_einsums(found.cascade)) == sure


def test_the_check_sees_fibers_that_are_all_absent_and_large_numbers():
    """What differs only there is found out: 0 / 0 in an empty row, an exponential that overflows."""
    ranks, inputs = "p: 8, m: 32", "X: [m, p], KEEP: [m, p]"
    written = cascade_of("D[p] = sum[m](abs(X[m, p])) where KEEP[m, p]\nZ[p] = select(D[p] == 0, 0, D[p] / D[p])",
                         ranks=ranks, inputs=inputs, outputs="Z")  # fmt: skip
    other = cascade_of("D[p] = sum[m](abs(X[m, p])) where KEEP[m, p]\nZ[p] = D[p] / D[p]",
                       ranks=ranks, inputs=inputs, outputs="Z")  # fmt: skip
    assert "all absent" in (Check(written).same_numbers(other) or "")
    shifted = cascade_of("Z[p] = sum[m](exp(X[m, p] - X[0, p]))", ranks=ranks, inputs="X: [m, p]", outputs="Z")
    bare = cascade_of("E[p] = sum[m](exp(X[m, p]))\nZ[p] = E[p] * exp(-X[0, p])",
                      ranks=ranks, inputs="X: [m, p]", outputs="Z")  # fmt: skip
    assert "times 300" in (Check(shifted).same_numbers(bare) or "")


# Maxima over several ranks


def softmax_of(x, v, axes):
    weights = np.exp(x - x.max(axis=axes, keepdims=True))
    weights /= weights.sum(axis=axes, keepdims=True)
    return np.einsum("ijp,fij->fp", weights, v)


@pytest.mark.parametrize("merge", ["running", "chunks"])
def test_softmax_over_two_ranks_survives_large_numbers(merge):
    cascade = TARGETS["two-ranks"]
    found = derive(cascade, merge=merge)
    sizes = {"i": 7, "j": 5, "p": 2, "f": 3}
    inputs = random_inputs(cascade, sizes)
    inputs["S"] = inputs["S"] * 800
    made = run(found.cascade, inputs, {"i0": 2, "j0": 3})["AV"]
    np.testing.assert_allclose(made, softmax_of(inputs["S"], inputs["V"], (0, 1)), rtol=1e-9)
    assert (found.passes_after["i"], found.passes_after["j"]) == (1, 1)


def test_branches_of_a_joint_softmax_wait_for_their_own_maximum_only():
    """The sums over i are made without anything of j, and the other way round."""
    found = derive(TARGETS["joint"])
    assert (found.passes_after["i"], found.passes_after["j"]) == (1, 1)
    lines = {line.split("[")[0].strip(): line for line in format_einsums(found.cascade).splitlines()}
    assert lines["NS"].endswith("= exp(X[i1, i0, p] - RMS[i1 + 1, p])")
    assert lines["NT"].endswith("= exp(T[j1, j0, p] - RMT[j1 + 1, p])")
    assert "where i1 * I0 + i0 < I" in lines["X"]  # S goes on beyond the end of i


def test_a_maximum_with_something_given_stays_whole():
    assert "exp(QK[m1, m0, p] - max(RM0X[m1 + 1, p], S))" in format_einsums(derive(TARGETS["sink"]).cascade)


# Later traversals


def test_groups_are_summed_each_by_itself():
    """A large factor of one group leaves no trace in a row that has only points of the other."""
    cascade = simple(
        "D[p] = sum[m](abs(X[m, p]))\nZ[p] = sum[m](select(W[m] > 0, 2, D[p]) * R[m, p])",
        inputs="X: [m, p], W: [m], R: [m, p]",
    )
    found = derive(cascade)
    check_derived(cascade, found)
    assert found.passes_after["m"] == 1
    inputs = random_inputs(cascade, {"m": 7, "p": 3, "f": 2})
    inputs |= {"X": 1e20 * inputs["X"], "W": np.ones(7)}
    np.testing.assert_allclose(run(found.cascade, inputs)["Z"], 2 * inputs["R"].sum(axis=0), rtol=1e-12)


def test_a_later_traversal_has_running_values_of_its_own():
    cascade = TARGETS["one-softmax-after-another"]
    found = derive(cascade)
    text = format_einsums(found.cascade)
    assert "RHM[m1 + 1, p]     = max(RHM[m1, p], LHM[m1, p])" in text
    assert found.cascade.split == {"m": ("m1", "m0")}
    assert found.obstacles[0] == "m: no identity applies: T traverses m in pass 2: it needs B, complete after pass 1."


def test_what_lacks_an_operand_that_may_be_absent_gets_its_condition():
    """The mean value is taken over the points of the mask, whatever the product reads."""
    cascade = simple(
        "S[m, p] = X[m, p] where KEEP[m, p]\nD[p] = sum[m](S[m, p])\nZ[f, p] = sum[m]((S[m, p] - D[p]) * V[f, m])",
        inputs="X: [m, p], V: [f, m], KEEP: [m, p]",
    )
    found = derive(cascade)
    check_derived(cascade, found)
    assert found.passes_after["m"] == 1
    sizes = {"p": 3, "m": 7, "f": 2}
    inputs = random_inputs(cascade, sizes)
    keep, x, v = inputs["KEEP"], np.where(inputs["KEEP"], inputs["X"], 0), inputs["V"]
    expected = v @ x - (v @ keep) * x.sum(axis=0)
    np.testing.assert_allclose(run(found.cascade, inputs)["Z"], expected, rtol=1e-9)


# Obstacles


@pytest.mark.parametrize("name", ["unreduced", "column-mean"])
def test_a_softmax_that_is_consumed_unreduced_stays_at_two(name):
    found = derive(TARGETS[name])
    assert found.passes_after["m"] == 2
    assert any("still holds m" in o and "consumed unreduced" in o for o in found.obstacles)


def test_rms_norm_stays_at_two_and_says_why():
    found = derive(load_cascade("rms-norm"))
    assert found.stages == ()
    assert found.cascade == load_cascade("rms-norm")
    assert found.obstacles == ("Y is an output that still holds n and needs MS, complete over n: consumed unreduced.",)


def test_a_nonlinear_use_of_a_scale_is_an_obstacle():
    cascade = simple("D[p] = max[m](abs(X[m, p]))\nY[m, p] = floor(X[m, p] / D[p])\nZ[f, p] = Y[m, p] * V[f, m]")
    found = derive(cascade)
    assert found.stages == ()
    assert any("floor" in o and "does not factor" in o for o in found.obstacles)


def test_a_window_whose_ends_are_absent_is_not_expanded_wrongly():
    cascade = simple(
        "D[p] = mean[w](X[p + w - 1])\nZ[p] = sum[w]((X[p + w - 1] - D[p]) * (X[p + w - 1] - D[p]))",
        ranks="p: 16, w: 3", inputs="X: [p]",
    )  # fmt: skip
    found = derive(cascade)
    check_derived(cascade, found)


def test_ties_between_names_and_extents():
    cascade = simple(
        "S[m, p] = exp(X[m, p])\nD[p] = sum[m](S[m, p])\nZ[f, p] = sum[m](S[m, p] / D[p] * V[f, m])",
        ranks="p: 8, m: 32, f: 4, sv: 3", inputs="X: [m, p], V: [f, m]",
    )  # fmt: skip
    found = derive(cascade)
    assert "SV" not in found.cascade.tensors
    assert found.passes_after["m"] == 1


def test_results_repeat():
    first, second = derive(TARGETS["gated"]), derive(TARGETS["gated"])
    assert first == second


def test_wrong_arguments():
    cascade = load_cascade("log-sum-exp")
    with pytest.raises(InputError, match="unknown rank 'q'"):
        derive(cascade, rank="q")
    with pytest.raises(InputError, match="merge"):
        derive(cascade, merge="other")  # type: ignore[arg-type]
