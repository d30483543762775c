"""The training loop: batches from the device's corpus, AdamW, cosine, EMA, exact resume; one file to read."""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.models.model import Model, ModelConfig, inference_dtype
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import corpus_hash, load_patients, remarks
from uhrct.training.losses import make_loss
from uhrct.training.muon import Muon, hidden
from uhrct.training.validation import validate

CHECKPOINT = "checkpoint.pt"


class Trainer:
    """Trains one network of a model (`config.stage` says which) and writes everything into one folder.

    Files: `checkpoint.pt` (exact resume), `model/` (config.json, model.safetensors with the averaged weights),
    `train.json` (the configuration), `log.jsonl` (losses, validation), `curve.png`.

    Parameters
    ----------
    out : folder of the run
    max_minutes, max_cpu_minutes : `Budget` over all resumed parts; None: until `config.steps`
    resume : go on from `out`'s checkpoint (start anew if there is none)

    Example
    -------
    ``uhrct train configs/x2-mean.yaml --out runs/x2 --max-minutes 60 --resume``
    """

    def __init__(
        self,
        config: TrainingConfig,
        out: str | Path,
        *,
        max_minutes: float | None = None,
        max_cpu_minutes: float | None = None,
        resume: bool = False,
        device: torch.device | None = None,
        quiet: bool = False,
    ) -> None:
        self.config, self.out, self.quiet = config, Path(out), quiet
        self.budget = Budget(max_minutes, max_cpu_minutes)
        self.world, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.device = device or _own_device()
        if self.world > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        checkpoint = self.out / CHECKPOINT
        if self.out.exists() and any(self.out.iterdir()) and not resume and self.rank == 0:
            raise UhrctError(f"{self.out}: not empty; go on with --resume or choose another --out")
        self.model = build_model(config).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network = getattr(self.model, config.stage)
        assert network is not None
        self.network = network
        self.model.requires_grad_(False)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not config.only or name.startswith(config.only))
        trained = [p for p in self.network.parameters() if p.requires_grad]
        if not trained:
            raise UhrctError(f"only={list(config.only)}: the {config.stage} network has no such parameters")
        self.ema = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        losses = make_loss(self.model, config)
        self.players = {"": losses} if callable(losses) else losses
        if len(self.players) > 1 and self.world > 1:
            raise UhrctError("networks that play against one another train in one process; leave torchrun out")
        self.optimizers = {name: self._optimizers(name) for name in self.players}
        self.step = 0
        if resume and checkpoint.is_file():
            self._load(checkpoint)
        if self.rank == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / "train.json").write_text(json.dumps(config.as_dict(), indent=2) + "\n")

    def run(self) -> Path:
        """Train until the budget ends; returns the folder of the trained model."""
        config = self.config
        self._say(f"reading {', '.join(config.corpus)}")
        patients = load_patients(config.corpus, config.corpus_weights, self.device)
        held_out = load_patients(config.validation, {}, torch.device("cpu")) if self.rank == 0 else []
        self.corpus_sha256 = corpus_hash(patients) if self.rank == 0 else ""
        for remark in remarks(patients):  # clipping and the like must not be learned unsaid
            self._say(f"note: {remark}")
        batches = BatchMaker(patients, config, self.model)
        network: nn.Module = self.network
        if config.compile:  # shares the parameters, so that saving and averaging know nothing of it
            network = torch.compile(network)  # type: ignore[assignment]
        if self.world > 1:
            network = nn.parallel.DistributedDataParallel(network)
        n_parameters = sum(p.numel() for p in self.network.parameters())
        self._say(
            f"{len(patients)} patients, {n_parameters / 1e6:.2f} M parameters, {self.device}"
            + (f", {self.world} processes" if self.world > 1 else "")
            + (f", going on at step {self.step}" if self.step else "")
        )
        self.budget.look()
        minutes = self.budget.minutes
        last_said = last_saved = last_validated = minutes
        self.running: dict[str, float] = {}
        while True:
            done = self._progress()
            minutes = self.budget.minutes
            if done >= 1:
                break
            parts: dict[str, Tensor] = {}
            for name in self.players:
                parts |= self._play(name, network, batches, done)
            self.step += 1
            self._average()
            self._track(parts)
            if self.rank == 0:
                if minutes - last_said > 0.5:
                    last_said = minutes
                    self._log(minutes, done)
                if minutes - last_saved > config.checkpoint_minutes:
                    last_saved = minutes
                    self._save(minutes)
                if minutes - last_validated > config.validate_minutes:
                    last_validated = minutes
                    self._validate(minutes, held_out)
        if self.rank == 0:
            self._log(minutes, 1.0)
            self._save(minutes)
            self._validate(minutes, held_out)
            from uhrct.training.curve import draw_curve

            try:
                draw_curve(self.out)
            except ImportError:  # all else is there: no reason to fall over at the end of hours
                self._say("no curve.png without matplotlib; pip install 'uhrct[train]'")
        if self.world > 1:
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
        return self.out / "model"

    def _trained(self, player: str) -> list[nn.Parameter]:
        """What a player may move: parameters by the beginning of their names, all of them for ""."""
        return [p for name, p in self.network.named_parameters() if p.requires_grad and name.startswith(player)]

    def _optimizers(self, player: str) -> list[torch.optim.Optimizer]:
        """AdamW for a player's parameters, and Muon for those that are its, if it is asked for."""
        config = self.config
        trained = self._trained(player)
        matrices = hidden(self.network.named_parameters()) if config.optimizer == "muon" else []
        theirs = {id(p) for p in matrices}
        matrices = [p for p in trained if id(p) in theirs]
        rest = [p for p in trained if id(p) not in theirs]
        adamw = torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=getattr(self.network, "betas", (0.9, 0.999)),
            fused=True,
        )
        return [adamw, *([Muon(matrices, config.learning_rate, config.weight_decay)] if matrices else [])]

    def _play(self, player: str, network: nn.Module, batches: BatchMaker, done: float) -> dict[str, Tensor]:
        """One optimiser's turn in a step; the parts of its loss and its gradient's norm."""
        optimizers, trained = self.optimizers[player], self._trained(player)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self._pace(done)
            optimizer.zero_grad(set_to_none=True)
        parts = self._gradients(player, trained, network, batches, done)
        norm = nn.utils.clip_grad_norm_(trained, self.config.gradient_clip)
        if torch.isfinite(norm):  # one bad batch must not end an hour's training
            for optimizer in optimizers:
                optimizer.step()
        return {**parts, f"{player}_gradient_norm".lstrip("_"): norm}

    def _gradients(
        self, player: str, trained: list[nn.Parameter], network: nn.Module, batches: BatchMaker, done: float
    ) -> dict[str, Tensor]:
        """Gradients of a turn, over `config.accumulate` batches; the parts of the last one's loss."""
        n = self.config.accumulate
        # the other players' weights take no gradient, though the loss leads through them
        only = None if len(self.players) == 1 else trained
        for k in range(n):
            micro_step = self.step * n + k
            generator = torch.Generator().manual_seed((self.config.seed * 7_919 + micro_step) * 1013 + self.rank)
            last = k == n - 1
            # between processes gradients are summed once a step
            wait = nullcontext() if last or self.world == 1 else network.no_sync()  # type: ignore[operator]
            with wait:
                with self._autocast():
                    batch = replace(batches(micro_step, self.rank), done=done)
                    loss, parts = self.players[player](network, batch, generator)
                (loss / n).backward(inputs=only)
        return parts

    def _progress(self) -> float:
        """Share of steps or budget that is used, the same on every process."""
        done = max(self.step / self.config.steps, self.budget.look())
        if self.world > 1:
            shared = torch.tensor([done], dtype=torch.float64, device=self.device)
            torch.distributed.broadcast(shared, 0)
            done = float(shared)
        return done

    def _pace(self, done: float) -> float:
        """Learning rate's factor: linear warm-up, then a cosine down to 1 %."""
        warm = min((self.step + 1) / max(self.config.warmup_steps, 1), 1.0)
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = inference_dtype(self.device)
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)

    @torch.no_grad()
    def _average(self) -> None:
        # a young average forgets its start faster
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:  # batch normalisation counts its batches
                self.ema[name].copy_(value)

    def _track(self, parts: dict[str, Tensor]) -> None:
        """Running means of about 100 steps; .item() only here, once a step, as the CPU waits anyway."""
        for name, value in parts.items():
            v = float(value.detach())
            if math.isfinite(v):  # a mean would never recover from the one bad batch
                self.running[name] = v if name not in self.running else 0.99 * self.running[name] + 0.01 * v

    def _log(self, minutes: float, done: float) -> None:
        spent = {"minutes": round(minutes, 3), "cpu_minutes": round(self.budget.cpu_minutes, 3)}
        record = {"step": self.step, **spent, "lr": self._rate()}
        self._write_log({**record, **{k: round(v, 6) for k, v in self.running.items()}})
        parts = "  ".join(f"{k} {v:.4f}" for k, v in self.running.items())
        left = (1 - done) / done * minutes if done > 0 else math.nan
        self._say(f"step {self.step}  {minutes:.1f} min ({left:.0f} left)  {parts}")

    def _rate(self) -> float:
        return next(iter(self.optimizers.values()))[0].param_groups[0]["lr"]

    def _validate(self, minutes: float, held_out: list[Any]) -> None:
        if not held_out:
            return
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.ema)
        with self._autocast():
            scores = validate(self.model.eval(), held_out, self.config)
        self.network.load_state_dict(trained)
        self.model.train()
        self._write_log({"step": self.step, "minutes": round(minutes, 3), "validation": scores})
        for patient, s in scores.items():
            self._say(
                f"  validation {patient}: {s['psnr_wide']:.2f} dB ({s['gain_db']:+.2f} over interpolation), "
                f"SMSE x 1000 {1000 * s['smse_frangi']:.4f} (interpolation / {s['smse_ratio']:.1f})"
            )

    def _save(self, minutes: float) -> None:
        state = {
            "step": self.step,
            "minutes": minutes,
            "cpu_minutes": self.budget.cpu_minutes,
            "network": self.network.state_dict(),
            "ema": self.ema,
            "optimizer": [o.state_dict() for one in self.optimizers.values() for o in one],
            "config": self.config.as_dict(),
        }
        unfinished = self.out / (CHECKPOINT + ".tmp")
        torch.save(state, unfinished)
        unfinished.replace(self.out / CHECKPOINT)
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.ema)
        self.model.save_pretrained(self.out / "model")
        self.network.load_state_dict(trained)

    def _load(self, checkpoint: Path) -> None:
        try:
            state = torch.load(checkpoint, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            stored = state["optimizer"]  # one of its own, not a list, until there were players
            own = [o for one in self.optimizers.values() for o in one]
            for o, of in zip(own, stored if isinstance(stored, list) else [stored], strict=True):
                o.load_state_dict(of)
            self.ema, self.step, self.budget.minutes = state["ema"], state["step"], state["minutes"]
            self.budget.cpu_minutes = state.get("cpu_minutes", 0.0)  # not counted by the first versions
            before = state["config"]
        except Exception as e:  # unpickling raises whatever it likes
            reason = " ".join(f"{type(e).__name__} {e}".split())[:120]
            raise UhrctError(f"{checkpoint}: can't go on from it ({reason}); start anew with another --out") from e
        now = self.config.as_dict()
        for key in sorted(k for k in now if now[k] != before.get(k)):
            self._say(f"note: {key} was {before.get(key)!r} until step {self.step}, is {now[key]!r} from here on")

    def _write_log(self, record: dict[str, Any]) -> None:
        record = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **record}
        if self.corpus_sha256:
            record["corpus_sha256"] = self.corpus_sha256[:16]
        with (self.out / "log.jsonl").open("a") as f:
            f.write(json.dumps(record) + "\n")

    def _say(self, line: str) -> None:
        if not self.quiet and self.rank == 0:
            print(line, file=sys.stderr, flush=True)


def build_model(config: TrainingConfig) -> Model:
    """The model to train: new by `config.model`, or that of `config.init` with `config.model` merged into it."""
    torch.manual_seed(config.seed)
    source = None if config.init is None else Model.from_pretrained(config.init)
    settings = _merged({} if source is None else vars(source.config), config.model)
    try:
        model = Model(ModelConfig(**settings))
    except TypeError as e:
        raise UhrctError(f"model: unknown or missing settings ({e})") from e
    wanted = model.state_dict()
    given = {} if source is None else source.state_dict()
    if source is not None and source.mean is not None and model.mean is not None:
        _widen(given, "mean.image.head.weight", wanted, model.config.context - source.config.context)
    fitting = {k: v for k, v in given.items() if k in wanted and wanted[k].shape == v.shape}
    model.load_state_dict(fitting, strict=False)
    if unfit := sorted({k.split(".")[0] for k in given.keys() - fitting.keys()}):
        raise UhrctError(f"{config.init}: its {' and '.join(unfit)} network is of another size; leave model.* as it is")
    if getattr(model, config.stage) is None:
        raise UhrctError(f"stage {config.stage!r}: the model has no such network; give model.{config.stage}")
    if config.stage == "denoiser" and not {k for k in wanted if k.startswith("mean.")} <= fitting.keys():
        raise UhrctError("stage denoiser: the mean network would stay random; give init=MODEL that holds it")
    return model


def _widen(given: dict[str, Tensor], key: str, wanted: dict[str, Tensor], more: int) -> None:
    """Let a network that saw fewer neighbours begin as it was: the new ones enter with zero weight."""
    if more > 0 and given[key].shape[2:] == wanted[key].shape[2:]:
        zeros = torch.zeros_like(given[key][:, :1]).repeat_interleave(more, 1)
        given[key] = torch.cat([zeros, given[key], zeros], 1)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, group by group: model.mean.image_width=64 leaves the rest of model.mean alone."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both else value
    return out


def _own_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
