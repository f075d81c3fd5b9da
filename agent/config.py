"""Every number of the agent, with DreamerV3's values as defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from continual.envs.registry import resolve_task
from continual.section import Section
from continual.validation import checked

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Entropy = Literal["by_classes", "min_max"]
Divergence = Literal["mean", "sum"]
Weight = Literal["positive", "exp", "softmax", "binary", "uniform"]
TaskName = Annotated[str, AfterValidator(checked(resolve_task))]


class ModelConfig(Section):
    """Sizes of the networks; the defaults are DreamerV3's size12m."""

    deter: Count = Field(2048, description="D, width of the deterministic latent")
    hidden: Count = Field(256, description="width of the layers inside the RSSM")
    stoch: Count = Field(32, description="S, number of categorical latents")
    classes: Annotated[int, Field(ge=2, le=256)] = Field(16, description="K, classes of each")
    blocks: Count = Field(8, description="blocks of the block-diagonal recurrence")
    dyn_layers: Count = Field(1, description="block-linear layers before the gates")
    prior_layers: Count = Field(2, description="layers of the prior")
    posterior_layers: Count = Field(1, description="layers of the posterior")
    units: Count = Field(256, description="width of every MLP")
    vector_layers: Count = Field(3, description="layers of the vector encoder and decoder")
    reward_layers: Count = Field(1, description="layers of the reward and continue heads")
    policy_layers: Count = Field(3, description="layers of actor, critic and riders")
    image_code: Literal["conv", "patch"] = Field(
        "conv",
        description="conv: the reference's; patch: matrix products only, for CPUs",
    )
    depth: Count = Field(16, description="channels of the image code, in multiples of this")
    patch: Count = Field(8, description="edge of a patch in pixels, for image_code=patch")
    unimix: Share = Field(0.01, description="uniform share mixed into every categorical latent")
    actor_unimix: Share = Field(
        0.01, description="the same for categorical actions (paper; docs/adr)"
    )
    compute_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of matrix products"
    )

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if self.deter % self.blocks:
            raise ValueError(f"deter={self.deter} is not divisible by blocks={self.blocks}")
        if self.image_code == "conv" and 4 * self.depth % self.blocks:
            raise ValueError(f"4 * depth={4 * self.depth} is not divisible by blocks={self.blocks}")
        if 64 % self.patch:
            raise ValueError(f"patch={self.patch} does not divide the image's 64 pixels")
        return self


class LossConfig(Section):
    """Scales and constants of the losses (DreamerV3, Table of hyperparameters)."""

    reconstruction: float = Field(1.0, description="of each slot")
    reward: float = Field(1.0, description="two-hot")
    continue_: float = Field(1.0, alias="continue", description="soft label of the discount")
    dynamics: float = Field(1.0, description="prior towards posterior")
    representation: float = Field(0.1, description="posterior towards prior")
    policy: float = Field(1.0, description="REINFORCE in imagination")
    value: float = Field(1.0, description="critic on imagined returns")
    replay_value: float = Field(0.3, description="critic on replayed returns")
    free_nats: float = Field(1.0, description="KL below this is not minimised")
    slow_regulariser: float = Field(1.0, description="weight of the slow critic's own prediction")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ImaginationConfig(Section):
    """Imagination and the actor-critic learnt in it."""

    horizon: Count = Field(15, description="H, imagined steps")
    last: Annotated[int, Field(ge=0)] = Field(
        0,
        description="imagine from the last K states of each sequence, 2 or more; 0: from all",
    )
    discount_horizon: Annotated[float, Field(gt=1)] = Field(333.0, description="gamma = 1 - 1/this")
    lambda_: Share = Field(0.95, alias="lambda", description="of the lambda-returns")
    entropy: float = Field(3e-4, description="eta, scale of the actor's entropy bonus")
    return_rate: Rate = Field(0.01, description="EMA rate of the return percentiles")
    return_floor: Positive = Field(
        1.0, description="returns are never scaled up by more than 1/this"
    )
    slow_rate: Rate = Field(0.02, description="EMA rate of the slow critic")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="after")
    def _has_successor(self) -> ImaginationConfig:
        if self.last == 1:
            raise ValueError(
                "last=1: a state alone has no return in replay; expected 0, or 2 or more"
            )
        return self

    @property
    def gamma(self) -> float:
        return 1 - 1 / self.discount_horizon


class OptimiserConfig(Section):
    """LaProp with adaptive gradient clipping, state kept per owner (slot, head, shared)."""

    lr: Positive = Field(4e-5, description="learning rate after the warm-up")
    warmup: Annotated[int, Field(ge=0)] = Field(
        1000, description="updates of linear warm-up from 0"
    )
    agc: Positive = Field(0.3, description="bound of a tensor's gradient norm over its own norm")
    pmin: Positive = Field(1e-3, description="smallest own norm that counts")
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="momentum of the scaled gradient"
    )
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="decay of the squared gradient"
    )
    eps: Positive = Field(1e-20, description="keeps the scaling finite")
    idle: Literal["keep", "decay"] = Field(
        "keep",
        description="owners absent from a batch: untouched, or fed a zero gradient",
    )


class AwacConfig(Section):
    """A rider that imitates replayed actions by their advantage (docs/equations.md)."""

    kind: Literal["awac"] = "awac"
    weight: Weight = Field(
        "exp",
        description="exp(max(A, 0)/beta), exp(A/beta), softmax over the batch, 1[A > 0], or 1 "
        "(behaviour cloning)",
    )
    advantage: Literal["percentile", "rms"] = Field(
        "rms",
        description="A in units of the return spread, or of its own EMA deviation",
    )
    beta: Positive = Field(0.1, description="temperature of the weights")
    w_max: Positive = Field(20.0, description="clip of a weight")
    lambda_: Share | None = Field(
        0.5,
        alias="lambda",
        description="of its replayed returns; 0: one step, as in AWAC; null: that of imagination",
    )
    bootstrap: Literal["slow", "imagined"] = Field(
        "slow", description="ends of replayed returns: slow critic, or imagined return"
    )
    normalise: Literal["none", "task"] = Field(
        "none", description="task: weights have mean 1 within each task of a batch"
    )


class EmaConfig(Section):
    """A rider that is a slow copy of the actor."""

    kind: Literal["ema"] = "ema"
    rate: Share = Field(0.005, description="share of the actor taken over at each update")


class TwinConfig(Section):
    """A rider that learns in imagination as the actor does, from another start and other dreams."""

    kind: Literal["twin"] = "twin"


RiderConfig = Annotated[AwacConfig | EmaConfig | TwinConfig, Field(discriminator="kind")]


class Gate(Section):
    """What all gates have."""

    hold: Count = Field(1, description="decisions for which a choice stands, within an episode")


class ScoredGate(Gate):
    """A gate that weighs certainty against something that speaks for caution."""

    alpha: Annotated[float, Field(ge=0)] = Field(5.0, description="steepness")
    beta_div: Annotated[float, Field(ge=0)] = Field(0.5, description="cost of the full penalty")
    bias: float = Field(0.0, description="positive: prior against the partner")
    p_min: Share = Field(0.05, description="the partner acts at least this often")
    p_max: Share = Field(0.95, description="and at most this often")
    entropy: Entropy = Field(
        "by_classes",
        description="of a class: H / ln K, or min_max: 0 at the least that unimix leaves",
    )
    divergence: Divergence = Field("mean", description="over the dimensions of a head")

    @model_validator(mode="after")
    def _ordered(self) -> ScoredGate:
        if self.p_min > self.p_max:
            raise ValueError(f"p_min={self.p_min} is above p_max={self.p_max}")
        return self


class ConfidenceGate(ScoredGate):
    """Who is more certain, and do they agree? (docs/gate.md)."""

    kind: Literal["confidence"] = "confidence"
    tau: Annotated[float, Field(ge=0)] = Field(0.5, description="nats per head that still agree")
    scale: Positive = Field(1.0, description="nats beyond tau over which the cost saturates")


class SurpriseGate(ScoredGate):
    """Who is more certain, and did the world do what the model expected?"""

    kind: Literal["surprise"] = "surprise"
    tau: Annotated[float, Field(ge=0)] = Field(
        1.0, description="nats of KL(posterior || prior) that are no surprise: the free nats"
    )
    scale: Positive = Field(5.0, description="nats beyond tau over which the cost saturates")


class RandomGate(Gate):
    """The partner acts at a rate, whatever the policies say; drawn in every action mode."""

    kind: Literal["random"] = "random"
    p: Share = Field(0.5, description="the rate, of tasks that by_task does not name")
    by_task: dict[TaskName, Share] = Field({}, description="rates of single tasks")
    recorded: str = Field(
        "", description="folder of a run with a gate: by_task becomes its choice rates"
    )

    def of(self, task: str) -> RandomGate:
        """The gate of one task."""
        return RandomGate(hold=self.hold, p=self.by_task.get(task, self.p))


class FixedGate(Gate):
    """One policy alone: 0 the first, 1 the partner."""

    kind: Literal["fixed"] = "fixed"
    p: Literal[0, 1] = Field(1, description="0: the partner never acts; 1: always")


GateConfig = ConfidenceGate | SurpriseGate | RandomGate | FixedGate


class AgentConfig(Section):
    """DreamerV3, its riders, and who acts."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    imagination: ImaginationConfig = ImaginationConfig()
    optim: OptimiserConfig = OptimiserConfig()
    riders: dict[str, RiderConfig] = Field(
        {"awac": AwacConfig()}, description="learners on stopped features, by name"
    )
    critic: Literal["imagined", "replay"] = Field(
        "imagined",
        description="learnt in imagination and on replay, or on replay alone, without imagination",
    )
    acting: Literal["gated", "dreamer", "random"] = Field("gated", description="who lives the life")
    partner: str = Field("awac", description="the rider that the gate may choose")
    gate: Annotated[GateConfig, Field(discriminator="kind")] = ConfidenceGate()

    @model_validator(mode="after")
    def _can_be_built(self) -> AgentConfig:
        if self.acting == "gated" and self.partner not in self.riders:
            riders = ", ".join(self.riders) or "it has none"
            raise ValueError(f"partner={self.partner!r} is not a rider of this agent ({riders})")
        if self.critic == "replay":
            self._refuse_what_needs_dreams()
        return self

    def _refuse_what_needs_dreams(self) -> None:
        """Raises ValueError: without imagination the actor learns nothing, and would act."""
        alone = isinstance(self.gate, FixedGate) and self.gate.p == 1
        if self.acting == "dreamer" or (self.acting == "gated" and not alone):
            raise ValueError(
                "critic=replay: the actor learns nothing, expected acting=gated with a gate of "
                "kind=fixed and p=1"
            )
        for name, rider in self.riders.items():
            if isinstance(rider, TwinConfig) or (
                isinstance(rider, AwacConfig) and rider.bootstrap == "imagined"
            ):
                raise ValueError(f"critic=replay: nothing is imagined, but rider {name} needs it")
            if isinstance(rider, EmaConfig):
                raise ValueError(f"critic=replay: rider {name} copies an actor that learns nothing")
