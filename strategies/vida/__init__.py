"""ViDA: a narrow and a wide bottleneck beside each attention layer, weighed against each other by uncertainty.

Liu, Yang, Jia, Zhang, Lu, Guo, Xue, Zhang, "ViDA: Homeostatic Visual Domain Adapter for Continual Test-Time
Adaptation", ICLR 2024, arXiv 2306.04344. A linear layer W with a pair (U, D) of low and of high rank computes

    y = W x + b + l_low U_low D_low x + l_high U_high D_high x.

The pairs are warmed up on the labelled source split (`strategy`). Then, for each batch at test time:

    1  u: how far the teacher's outputs differ between `passes` perturbed passes                       (`allotment`)
    2  homeostatic allotment: l_high = 1 + u, l_low = 1 - u where u >= threshold, else l_high = 1 - u, l_low = 1 + u
    3  the prediction: the teacher's logits on the plain images                                         (`teaching`)
    4  student <- one step on -softmax(target) . log softmax(student)
    5  teacher <- a teacher + (1 - a) student, with one a for the pairs and one for the rest
    6  each scalar of the student returns to its start with probability `restore`

Paper and released code differ in almost every part; presets name the reading (`settings`). `palimpsest` (the defaults)
is ours: the target is the teacher's mean over the passes, since with equal teacher, student and images (`target =
plain`) step 4 has no gradient at first.

`vida-static` scores with the warmed pairs and learns nothing; `vida-static+hka` lets steps 1 to 3 run. A gain of `vida`
counts as adaptation only over these.
"""

from strategies.vida.settings import PRESETS as PRESETS
from strategies.vida.settings import VidaHyper as VidaHyper
from strategies.vida.strategy import Vida as Vida
from strategies.vida.strategy import VidaStatic as VidaStatic
from strategies.vida.strategy import VidaStaticHka as VidaStaticHka
