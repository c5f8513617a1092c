"""Every operation of the API: one class per path, one method per operation.

Generated from openapi/openapi.json by `make sdk`; changes by hand are lost.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Optional, Union

from luthier.downloads import Download
from luthier.generated import models
from luthier.pages import Page
from luthier.records import JsonObject, read, read_object
from luthier.requests import OMIT, FileInput, Omit, Request, filled
from luthier.streams import Stream
from luthier.transport import Transport


class FineTuningCheckpointsPermissions:
    """The operations of `fine_tuning.checkpoints.permissions`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        fine_tuned_model_checkpoint: str,
        *,
        project_id: Union[Omit, Optional[str]] = OMIT,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        order: Union[Omit, Literal["ascending", "descending"]] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.PermissionObject]:
        """List the projects that may call a checkpoint besides its own.

        project_id: Only the permission of this project.
        after: The id of the last object of the page before this one.
        limit: The most objects to return.
        order: `descending`: newest first.
        """
        request = Request(
            "GET",
            filled(
                "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions",
                fine_tuned_model_checkpoint=fine_tuned_model_checkpoint,
            ),
            query={
                "project_id": project_id,
                "after": after,
                "limit": limit,
                "order": order,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.PermissionObject, request)

    def create(
        self,
        fine_tuned_model_checkpoint: str,
        *,
        project_ids: Sequence[str],
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.PermissionObject]:
        """Let other projects call a checkpoint."""
        request = Request(
            "POST",
            filled(
                "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions",
                fine_tuned_model_checkpoint=fine_tuned_model_checkpoint,
            ),
            body={
                "project_ids": project_ids,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.PermissionObject, request)

    def delete(
        self,
        fine_tuned_model_checkpoint: str,
        permission_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.PermissionDeleted:
        """Revoke a permission."""
        request = Request(
            "DELETE",
            filled(
                "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}",
                fine_tuned_model_checkpoint=fine_tuned_model_checkpoint,
                permission_id=permission_id,
            ),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.PermissionDeleted, request)


class FineTuningJobsCheckpoints:
    """The operations of `fine_tuning.jobs.checkpoints`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        fine_tuning_job_id: str,
        *,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.CheckpointObject]:
        """List the models that a fine-tuning job has published during training, newest first.

        after: The id of the last object of the page before this one.
        limit: The most objects to return.
        """
        request = Request(
            "GET",
            filled("/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints", fine_tuning_job_id=fine_tuning_job_id),
            query={
                "after": after,
                "limit": limit,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.CheckpointObject, request)


class FineTuningJobsEvents:
    """The operations of `fine_tuning.jobs.events`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        fine_tuning_job_id: str,
        *,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        last_event_id: Union[Omit, Optional[str]] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.EventObject]:
        """List the events of a fine-tuning job, newest first; or follow them, oldest first, until the job has
        ended.

        after: The id of the last object of the page before this one.
        limit: The most objects to return.
        last_event_id: With `stream`: the last event seen, as browsers send it; takes precedence over `after`.
        """
        request = Request(
            "GET",
            filled("/v1/fine_tuning/jobs/{fine_tuning_job_id}/events", fine_tuning_job_id=fine_tuning_job_id),
            query={
                "after": after,
                "limit": limit,
            },
            headers={
                "last-event-id": last_event_id,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.EventObject, request)

    def stream(
        self,
        fine_tuning_job_id: str,
        *,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        last_event_id: Union[Omit, Optional[str]] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Stream[models.EventObject]:
        """List the events of a fine-tuning job, newest first; or follow them, oldest first, until the job has
        ended.

        after: The id of the last object of the page before this one.
        limit: The most objects to return.
        last_event_id: With `stream`: the last event seen, as browsers send it; takes precedence over `after`.
        """
        request = Request(
            "GET",
            filled("/v1/fine_tuning/jobs/{fine_tuning_job_id}/events", fine_tuning_job_id=fine_tuning_job_id),
            query={
                "after": after,
                "limit": limit,
                "stream": True,
            },
            headers={
                "last-event-id": last_event_id,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.stream(lambda sent: read(models.EventObject, sent), request)


class ChatCompletions:
    """The operations of `chat.completions`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        model: str,
        messages: Sequence[models.RequestMessageParam],
        user: Union[Omit, Optional[str]] = OMIT,
        frequency_penalty: Union[Omit, Optional[float]] = OMIT,
        presence_penalty: Union[Omit, Optional[float]] = OMIT,
        logit_bias: Union[Omit, Optional[Mapping[str, int]]] = OMIT,
        max_tokens: Union[Omit, Optional[int]] = OMIT,
        n: Union[Omit, Optional[int]] = OMIT,
        seed: Union[Omit, Optional[int]] = OMIT,
        stop: Union[Omit, Optional[Union[Sequence[str], str]]] = OMIT,
        stream_options: Union[Omit, Optional[models.StreamOptionsParam]] = OMIT,
        temperature: Union[Omit, Optional[float]] = OMIT,
        top_p: Union[Omit, Optional[float]] = OMIT,
        max_completion_tokens: Union[Omit, Optional[int]] = OMIT,
        logprobs: Union[Omit, Optional[bool]] = OMIT,
        top_logprobs: Union[Omit, Optional[int]] = OMIT,
        metadata: Union[Omit, Optional[Mapping[str, str]]] = OMIT,
        safety_identifier: Union[Omit, Optional[str]] = OMIT,
        prompt_cache_key: Union[Omit, Optional[str]] = OMIT,
        prompt_cache_retention: Union[Omit, Optional[Literal["in_memory", "24h"]]] = OMIT,
        prompt_cache_options: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        parallel_tool_calls: Union[Omit, Optional[bool]] = OMIT,
        audio: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        function_call: Union[Omit, Optional[Union[Literal["none", "auto", "required"], Mapping[str, Any]]]] = OMIT,
        functions: Union[Omit, Optional[Sequence[Mapping[str, Any]]]] = OMIT,
        modalities: Union[Omit, Optional[Sequence[Literal["text", "audio"]]]] = OMIT,
        moderation: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        prediction: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        reasoning_effort: Union[
            Omit, Optional[Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]]
        ] = OMIT,
        response_format: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        service_tier: Union[Omit, Optional[Literal["auto", "default", "flex", "scale", "priority", "fast"]]] = OMIT,
        store: Union[Omit, Optional[bool]] = OMIT,
        tool_choice: Union[Omit, Optional[Union[Literal["none", "auto", "required"], Mapping[str, Any]]]] = OMIT,
        tools: Union[Omit, Optional[Sequence[Mapping[str, Any]]]] = OMIT,
        verbosity: Union[Omit, Optional[Literal["low", "medium", "high"]]] = OMIT,
        web_search_options: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ChatCompletion:
        """Generate the next message of a conversation.

        model: A base, an alias of one, a tuned model, or a model alias of the project's.
        user: The same user gets the same of a model alias' two models.
        logit_bias: Token ids to what is added to their logits; the embedded engine takes only an empty one.
        n: Completions per prompt; 1 by default.
        seed: The same seed, request and environment give the same tokens.
        safety_identifier: As `user`, and before it.
        """
        request = Request(
            "POST",
            "/v1/chat/completions",
            body={
                "model": model,
                "user": user,
                "frequency_penalty": frequency_penalty,
                "presence_penalty": presence_penalty,
                "logit_bias": logit_bias,
                "max_tokens": max_tokens,
                "n": n,
                "seed": seed,
                "stop": stop,
                "stream_options": stream_options,
                "temperature": temperature,
                "top_p": top_p,
                "messages": messages,
                "max_completion_tokens": max_completion_tokens,
                "logprobs": logprobs,
                "top_logprobs": top_logprobs,
                "metadata": metadata,
                "safety_identifier": safety_identifier,
                "prompt_cache_key": prompt_cache_key,
                "prompt_cache_retention": prompt_cache_retention,
                "prompt_cache_options": prompt_cache_options,
                "parallel_tool_calls": parallel_tool_calls,
                "audio": audio,
                "function_call": function_call,
                "functions": functions,
                "modalities": modalities,
                "moderation": moderation,
                "prediction": prediction,
                "reasoning_effort": reasoning_effort,
                "response_format": response_format,
                "service_tier": service_tier,
                "store": store,
                "tool_choice": tool_choice,
                "tools": tools,
                "verbosity": verbosity,
                "web_search_options": web_search_options,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ChatCompletion, request)

    def stream(
        self,
        *,
        model: str,
        messages: Sequence[models.RequestMessageParam],
        user: Union[Omit, Optional[str]] = OMIT,
        frequency_penalty: Union[Omit, Optional[float]] = OMIT,
        presence_penalty: Union[Omit, Optional[float]] = OMIT,
        logit_bias: Union[Omit, Optional[Mapping[str, int]]] = OMIT,
        max_tokens: Union[Omit, Optional[int]] = OMIT,
        n: Union[Omit, Optional[int]] = OMIT,
        seed: Union[Omit, Optional[int]] = OMIT,
        stop: Union[Omit, Optional[Union[Sequence[str], str]]] = OMIT,
        stream_options: Union[Omit, Optional[models.StreamOptionsParam]] = OMIT,
        temperature: Union[Omit, Optional[float]] = OMIT,
        top_p: Union[Omit, Optional[float]] = OMIT,
        max_completion_tokens: Union[Omit, Optional[int]] = OMIT,
        logprobs: Union[Omit, Optional[bool]] = OMIT,
        top_logprobs: Union[Omit, Optional[int]] = OMIT,
        metadata: Union[Omit, Optional[Mapping[str, str]]] = OMIT,
        safety_identifier: Union[Omit, Optional[str]] = OMIT,
        prompt_cache_key: Union[Omit, Optional[str]] = OMIT,
        prompt_cache_retention: Union[Omit, Optional[Literal["in_memory", "24h"]]] = OMIT,
        prompt_cache_options: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        parallel_tool_calls: Union[Omit, Optional[bool]] = OMIT,
        audio: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        function_call: Union[Omit, Optional[Union[Literal["none", "auto", "required"], Mapping[str, Any]]]] = OMIT,
        functions: Union[Omit, Optional[Sequence[Mapping[str, Any]]]] = OMIT,
        modalities: Union[Omit, Optional[Sequence[Literal["text", "audio"]]]] = OMIT,
        moderation: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        prediction: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        reasoning_effort: Union[
            Omit, Optional[Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]]
        ] = OMIT,
        response_format: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        service_tier: Union[Omit, Optional[Literal["auto", "default", "flex", "scale", "priority", "fast"]]] = OMIT,
        store: Union[Omit, Optional[bool]] = OMIT,
        tool_choice: Union[Omit, Optional[Union[Literal["none", "auto", "required"], Mapping[str, Any]]]] = OMIT,
        tools: Union[Omit, Optional[Sequence[Mapping[str, Any]]]] = OMIT,
        verbosity: Union[Omit, Optional[Literal["low", "medium", "high"]]] = OMIT,
        web_search_options: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Stream[JsonObject]:
        """Generate the next message of a conversation.

        model: A base, an alias of one, a tuned model, or a model alias of the project's.
        user: The same user gets the same of a model alias' two models.
        logit_bias: Token ids to what is added to their logits; the embedded engine takes only an empty one.
        n: Completions per prompt; 1 by default.
        seed: The same seed, request and environment give the same tokens.
        safety_identifier: As `user`, and before it.
        """
        request = Request(
            "POST",
            "/v1/chat/completions",
            body={
                "model": model,
                "user": user,
                "frequency_penalty": frequency_penalty,
                "presence_penalty": presence_penalty,
                "logit_bias": logit_bias,
                "max_tokens": max_tokens,
                "n": n,
                "seed": seed,
                "stop": stop,
                "stream_options": stream_options,
                "temperature": temperature,
                "top_p": top_p,
                "messages": messages,
                "max_completion_tokens": max_completion_tokens,
                "logprobs": logprobs,
                "top_logprobs": top_logprobs,
                "metadata": metadata,
                "safety_identifier": safety_identifier,
                "prompt_cache_key": prompt_cache_key,
                "prompt_cache_retention": prompt_cache_retention,
                "prompt_cache_options": prompt_cache_options,
                "parallel_tool_calls": parallel_tool_calls,
                "audio": audio,
                "function_call": function_call,
                "functions": functions,
                "modalities": modalities,
                "moderation": moderation,
                "prediction": prediction,
                "reasoning_effort": reasoning_effort,
                "response_format": response_format,
                "service_tier": service_tier,
                "store": store,
                "tool_choice": tool_choice,
                "tools": tools,
                "verbosity": verbosity,
                "web_search_options": web_search_options,
                "stream": True,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.stream(read_object, request)


class FineTuningCheckpoints:
    """The operations of `fine_tuning.checkpoints`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.permissions = FineTuningCheckpointsPermissions(transport)


class FineTuningChecks:
    """The operations of `fine_tuning.checks`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.CheckObject]:
        """List the project's checks without their results, newest first.

        after: The id of the last object of the page before this one.
        limit: The most checks to return.
        """
        request = Request(
            "GET",
            "/v1/fine_tuning/checks",
            query={
                "after": after,
                "limit": limit,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.CheckObject, request)

    def create(
        self,
        *,
        model: str,
        training_file: str,
        validation_file: Union[Omit, Optional[str]] = OMIT,
        hyperparameters: Union[Omit, Optional[models.HyperparametersParam]] = OMIT,
        method: Union[Omit, Optional[models.MethodParam]] = OMIT,
        suffix: Union[Omit, Optional[str]] = OMIT,
        seed: Union[Omit, Optional[int]] = OMIT,
        metadata: Union[Omit, Optional[Mapping[str, str]]] = OMIT,
        integrations: Union[Omit, Optional[Sequence[models.IntegrationParam]]] = OMIT,
        tuning: Union[Omit, Optional[models.TuningParam]] = OMIT,
        early_stopping: Union[Omit, Optional[models.EarlyStoppingParam]] = OMIT,
        checkpoint_selection: Union[Omit, Optional[Literal["last", "best"]]] = OMIT,
        forgetting_report: Union[Omit, Optional[bool]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.CheckObject:
        """Check the files and settings of a job without starting it; read the result with its id.

        hyperparameters: Use the hyperparameters in `method`.
        early_stopping: End the training once the validation file no longer improves.
        checkpoint_selection: Which step the model is of: `last` (the default), or `best` on the validation
            file.
        forgetting_report: Measure a general text before and after the training.
        """
        request = Request(
            "POST",
            "/v1/fine_tuning/checks",
            body={
                "model": model,
                "training_file": training_file,
                "validation_file": validation_file,
                "hyperparameters": hyperparameters,
                "method": method,
                "suffix": suffix,
                "seed": seed,
                "metadata": metadata,
                "integrations": integrations,
                "tuning": tuning,
                "early_stopping": early_stopping,
                "checkpoint_selection": checkpoint_selection,
                "forgetting_report": forgetting_report,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.CheckObject, request)

    def retrieve(
        self,
        check_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.CheckObject:
        """Get a check with its result."""
        request = Request(
            "GET",
            filled("/v1/fine_tuning/checks/{check_id}", check_id=check_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.CheckObject, request)

    def delete(
        self,
        check_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.CheckDeleted:
        """Delete a check; one that has not ended ends."""
        request = Request(
            "DELETE",
            filled("/v1/fine_tuning/checks/{check_id}", check_id=check_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.CheckDeleted, request)

    def rows(
        self,
        check_id: str,
        *,
        start: Union[Omit, int] = OMIT,
        limit: Union[Omit, int] = OMIT,
        file: Union[Omit, Literal["training_file", "validation_file"]] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.CheckRows:
        """Get the mask of some rows: their text as the base reads it, in pieces that are trained or not.

        start: The first row to return; the file's first is 0.
        limit: The most rows to return; fewer where they are long.
        file: Which of the files.
        """
        request = Request(
            "GET",
            filled("/v1/fine_tuning/checks/{check_id}/rows", check_id=check_id),
            query={
                "start": start,
                "limit": limit,
                "file": file,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.CheckRows, request)


class FineTuningJobs:
    """The operations of `fine_tuning.jobs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.events = FineTuningJobsEvents(transport)
        self.checkpoints = FineTuningJobsCheckpoints(transport)

    def list(
        self,
        *,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        metadata: Union[Omit, Mapping[str, str]] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.JobObject]:
        """List the project's fine-tuning jobs, newest first.

        after: The id of the last object of the page before this one.
        limit: The most objects to return.
        metadata: Only jobs with this metadata: `metadata[key]=value`, or `metadata=null` for none.
        """
        request = Request(
            "GET",
            "/v1/fine_tuning/jobs",
            query={
                "after": after,
                "limit": limit,
                "metadata": metadata,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.JobObject, request)

    def create(
        self,
        *,
        model: str,
        training_file: str,
        validation_file: Union[Omit, Optional[str]] = OMIT,
        hyperparameters: Union[Omit, Optional[models.HyperparametersParam]] = OMIT,
        method: Union[Omit, Optional[models.MethodParam]] = OMIT,
        suffix: Union[Omit, Optional[str]] = OMIT,
        seed: Union[Omit, Optional[int]] = OMIT,
        metadata: Union[Omit, Optional[Mapping[str, str]]] = OMIT,
        integrations: Union[Omit, Optional[Sequence[models.IntegrationParam]]] = OMIT,
        tuning: Union[Omit, Optional[models.TuningParam]] = OMIT,
        early_stopping: Union[Omit, Optional[models.EarlyStoppingParam]] = OMIT,
        checkpoint_selection: Union[Omit, Optional[Literal["last", "best"]]] = OMIT,
        forgetting_report: Union[Omit, Optional[bool]] = OMIT,
        check: Union[Omit, Optional[str]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.JobObject:
        """Create a fine-tuning job and put it into the queue.

        hyperparameters: Use the hyperparameters in `method`.
        early_stopping: End the training once the validation file no longer improves.
        checkpoint_selection: Which step the model is of: `last` (the default), or `best` on the validation
            file.
        forgetting_report: Measure a general text before and after the training.
        check: The id of a check of this very job that found no problem: the files are not read again.
        """
        request = Request(
            "POST",
            "/v1/fine_tuning/jobs",
            body={
                "model": model,
                "training_file": training_file,
                "validation_file": validation_file,
                "hyperparameters": hyperparameters,
                "method": method,
                "suffix": suffix,
                "seed": seed,
                "metadata": metadata,
                "integrations": integrations,
                "tuning": tuning,
                "early_stopping": early_stopping,
                "checkpoint_selection": checkpoint_selection,
                "forgetting_report": forgetting_report,
                "check": check,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.JobObject, request)

    def retrieve(
        self,
        fine_tuning_job_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.JobObject:
        """Get a fine-tuning job."""
        request = Request(
            "GET",
            filled("/v1/fine_tuning/jobs/{fine_tuning_job_id}", fine_tuning_job_id=fine_tuning_job_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.JobObject, request)

    def cancel(
        self,
        fine_tuning_job_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.JobObject:
        """Cancel a fine-tuning job at once."""
        request = Request(
            "POST",
            filled("/v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel", fine_tuning_job_id=fine_tuning_job_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.JobObject, request)

    def pause(
        self,
        fine_tuning_job_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.JobObject:
        """Ask a running job to pause: it stays `running`, and is `paused` once its checkpoint is published."""
        request = Request(
            "POST",
            filled("/v1/fine_tuning/jobs/{fine_tuning_job_id}/pause", fine_tuning_job_id=fine_tuning_job_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.JobObject, request)

    def resume(
        self,
        fine_tuning_job_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.JobObject:
        """Let a paused job continue exactly where it stopped; or cancel a pause before it takes effect."""
        request = Request(
            "POST",
            filled("/v1/fine_tuning/jobs/{fine_tuning_job_id}/resume", fine_tuning_job_id=fine_tuning_job_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.JobObject, request)


class ModelAliasesHistory:
    """The operations of `model_aliases.history`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        name: str,
        *,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.ModelAliasChangeObject]:
        """List the changes of a model alias, newest first: what, when, and with whose key.

        after: The id of the last object of the page before this one.
        limit: The most objects to return.
        """
        request = Request(
            "GET",
            filled("/v1/model_aliases/{name}/history", name=name),
            query={
                "after": after,
                "limit": limit,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.ModelAliasChangeObject, request)


class ResponsesInputItems:
    """The operations of `responses.input_items`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        response_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Any:
        """Always a 404: responses are not stored."""
        request = Request(
            "GET",
            filled("/v1/responses/{response_id}/input_items", response_id=response_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.json(request)


class UploadsParts:
    """The operations of `uploads.parts`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(
        self,
        upload_id: str,
        *,
        data: FileInput,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.UploadPartObject:
        """Add a part to a pending upload. Parts may come in any order, and in parallel.

        data: The part's bytes.
        """
        request = Request(
            "POST",
            filled("/v1/uploads/{upload_id}/parts", upload_id=upload_id),
            form={},
            files={
                "data": data,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.UploadPartObject, request)


class ApiKeys:
    """The operations of `api_keys`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.ApiKeyObject]:
        """List the API keys of all projects, with an admin's, newest first.

        after: The id of the last object of the page before this one.
        limit: The most objects to return.
        """
        request = Request(
            "GET",
            "/v1/api_keys",
            query={
                "after": after,
                "limit": limit,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.ApiKeyObject, request)

    def create(
        self,
        *,
        name: str,
        project: Union[Omit, str] = OMIT,
        role: Union[Omit, Literal["project", "admin"]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ApiKeyWithValue:
        """Create an API key, with an admin's; the response alone has its secret.

        name: What it is for; shown beside what it does.
        project: The name of its project, which is created if it is new.
        role: `admin` sees every project, and may create and revoke keys.
        """
        request = Request(
            "POST",
            "/v1/api_keys",
            body={
                "name": name,
                "project": project,
                "role": role,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ApiKeyWithValue, request)

    def retrieve(
        self,
        key_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ApiKeyObject:
        """Get an API key, with an admin's."""
        request = Request(
            "GET",
            filled("/v1/api_keys/{key_id}", key_id=key_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ApiKeyObject, request)

    def delete(
        self,
        key_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ApiKeyDeleted:
        """Revoke an API key, with an admin's: at most 5 seconds later it is worth nothing."""
        request = Request(
            "DELETE",
            filled("/v1/api_keys/{key_id}", key_id=key_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ApiKeyDeleted, request)


class Chat:
    """The operations of `chat`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.completions = ChatCompletions(transport)


class Classifications:
    """The operations of `classifications`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        model: str,
        user: Union[Omit, Optional[str]] = OMIT,
        input: Union[Omit, Optional[Union[str, Sequence[str], Sequence[int], Sequence[Sequence[int]]]]] = OMIT,
        messages: Union[Omit, Optional[Sequence[models.RequestMessageParam]]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ClassificationOutput:
        """Classify or score one or several texts, with a model that was trained for it.

        model: A base, an alias of one, a tuned model, or a model alias of the project's.
        user: The same user gets the same of a model alias' two models.
        input: A text or several; or their tokens.
        messages: A conversation instead, which the base's chat template writes.
        """
        request = Request(
            "POST",
            "/v1/classifications",
            body={
                "model": model,
                "user": user,
                "input": input,
                "messages": messages,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ClassificationOutput, request)


class Completions:
    """The operations of `completions`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        model: str,
        prompt: Union[str, Sequence[str], Sequence[int], Sequence[Sequence[int]]],
        user: Union[Omit, Optional[str]] = OMIT,
        frequency_penalty: Union[Omit, Optional[float]] = OMIT,
        presence_penalty: Union[Omit, Optional[float]] = OMIT,
        logit_bias: Union[Omit, Optional[Mapping[str, int]]] = OMIT,
        max_tokens: Union[Omit, Optional[int]] = OMIT,
        n: Union[Omit, Optional[int]] = OMIT,
        seed: Union[Omit, Optional[int]] = OMIT,
        stop: Union[Omit, Optional[Union[Sequence[str], str]]] = OMIT,
        stream_options: Union[Omit, Optional[models.StreamOptionsParam]] = OMIT,
        temperature: Union[Omit, Optional[float]] = OMIT,
        top_p: Union[Omit, Optional[float]] = OMIT,
        best_of: Union[Omit, Optional[int]] = OMIT,
        echo: Union[Omit, Optional[bool]] = OMIT,
        logprobs: Union[Omit, Optional[int]] = OMIT,
        suffix: Union[Omit, Optional[str]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.Completion:
        """Continue one or several texts.

        model: A base, an alias of one, a tuned model, or a model alias of the project's.
        user: The same user gets the same of a model alias' two models.
        logit_bias: Token ids to what is added to their logits; the embedded engine takes only an empty one.
        n: Completions per prompt; 1 by default.
        seed: The same seed, request and environment give the same tokens.
        best_of: Only 0 or the value of `n`.
        suffix: Only empty: engines here do not insert.
        """
        request = Request(
            "POST",
            "/v1/completions",
            body={
                "model": model,
                "user": user,
                "frequency_penalty": frequency_penalty,
                "presence_penalty": presence_penalty,
                "logit_bias": logit_bias,
                "max_tokens": max_tokens,
                "n": n,
                "seed": seed,
                "stop": stop,
                "stream_options": stream_options,
                "temperature": temperature,
                "top_p": top_p,
                "prompt": prompt,
                "best_of": best_of,
                "echo": echo,
                "logprobs": logprobs,
                "suffix": suffix,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.Completion, request)

    def stream(
        self,
        *,
        model: str,
        prompt: Union[str, Sequence[str], Sequence[int], Sequence[Sequence[int]]],
        user: Union[Omit, Optional[str]] = OMIT,
        frequency_penalty: Union[Omit, Optional[float]] = OMIT,
        presence_penalty: Union[Omit, Optional[float]] = OMIT,
        logit_bias: Union[Omit, Optional[Mapping[str, int]]] = OMIT,
        max_tokens: Union[Omit, Optional[int]] = OMIT,
        n: Union[Omit, Optional[int]] = OMIT,
        seed: Union[Omit, Optional[int]] = OMIT,
        stop: Union[Omit, Optional[Union[Sequence[str], str]]] = OMIT,
        stream_options: Union[Omit, Optional[models.StreamOptionsParam]] = OMIT,
        temperature: Union[Omit, Optional[float]] = OMIT,
        top_p: Union[Omit, Optional[float]] = OMIT,
        best_of: Union[Omit, Optional[int]] = OMIT,
        echo: Union[Omit, Optional[bool]] = OMIT,
        logprobs: Union[Omit, Optional[int]] = OMIT,
        suffix: Union[Omit, Optional[str]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Stream[models.Completion]:
        """Continue one or several texts.

        model: A base, an alias of one, a tuned model, or a model alias of the project's.
        user: The same user gets the same of a model alias' two models.
        logit_bias: Token ids to what is added to their logits; the embedded engine takes only an empty one.
        n: Completions per prompt; 1 by default.
        seed: The same seed, request and environment give the same tokens.
        best_of: Only 0 or the value of `n`.
        suffix: Only empty: engines here do not insert.
        """
        request = Request(
            "POST",
            "/v1/completions",
            body={
                "model": model,
                "user": user,
                "frequency_penalty": frequency_penalty,
                "presence_penalty": presence_penalty,
                "logit_bias": logit_bias,
                "max_tokens": max_tokens,
                "n": n,
                "seed": seed,
                "stop": stop,
                "stream_options": stream_options,
                "temperature": temperature,
                "top_p": top_p,
                "prompt": prompt,
                "best_of": best_of,
                "echo": echo,
                "logprobs": logprobs,
                "suffix": suffix,
                "stream": True,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.stream(lambda sent: read(models.Completion, sent), request)


class Embeddings:
    """The operations of `embeddings`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        model: str,
        input: Union[str, Sequence[str], Sequence[int], Sequence[Sequence[int]]],
        user: Union[Omit, Optional[str]] = OMIT,
        encoding_format: Union[Omit, Optional[Literal["float", "base64"]]] = OMIT,
        dimensions: Union[Omit, Optional[int]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.EmbeddingList:
        """The vector of one or several texts, by a model that was trained for it or an encoder.

        model: A base, an alias of one, a tuned model, or a model alias of the project's.
        input: A text or several, none of them empty; or their tokens.
        user: The same user gets the same of a model alias' two models.
        encoding_format: A vector as numbers, or as float32 in base64, which OpenAI's SDKs ask for and decode.
        dimensions: That of the model's vectors: no others are offered.
        """
        request = Request(
            "POST",
            "/v1/embeddings",
            body={
                "model": model,
                "user": user,
                "input": input,
                "encoding_format": encoding_format,
                "dimensions": dimensions,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.EmbeddingList, request)


class Files:
    """The operations of `files`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        purpose: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        order: Union[Omit, Literal["asc", "desc"]] = OMIT,
        after: Union[Omit, Optional[str]] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.FileObject]:
        """List the project's files.

        purpose: Only files with this purpose.
        limit: The most files to return.
        order: `desc`: newest first.
        after: The id of the last object of the page before this one.
        """
        request = Request(
            "GET",
            "/v1/files",
            query={
                "purpose": purpose,
                "limit": limit,
                "order": order,
                "after": after,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.FileObject, request)

    def create(
        self,
        *,
        file: FileInput,
        purpose: Literal["fine-tune", "assistants", "batch", "user_data", "vision", "evals"],
        expires_after_anchor: Union[Omit, Literal["created_at"]] = OMIT,
        expires_after_seconds: Union[Omit, int] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.FileObject:
        """Upload a file, which other endpoints take by its id.

        Of a file with the purpose `fine-tune`, each line is checked while it is received: where one is not a
        JSON object, the file is kept, its `status` is `error` and `status_details` says what is wrong with
        which lines. Files with other purposes are not checked, nor are those that `/v1/uploads` makes of
        parts, which come in any order. What a job needs of rows is checked when the job, or a check, is
        created.

        file: The file itself, not its name.
        """
        request = Request(
            "POST",
            "/v1/files",
            form={
                "purpose": purpose,
                "expires_after[anchor]": expires_after_anchor,
                "expires_after[seconds]": expires_after_seconds,
            },
            files={
                "file": file,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.FileObject, request)

    def retrieve(
        self,
        file_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.FileObject:
        """Get a file's metadata."""
        request = Request(
            "GET",
            filled("/v1/files/{file_id}", file_id=file_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.FileObject, request)

    def delete(
        self,
        file_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.FileDeleted:
        """Delete a file. Jobs that wait for it fail; running ones continue."""
        request = Request(
            "DELETE",
            filled("/v1/files/{file_id}", file_id=file_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.FileDeleted, request)

    def download(
        self,
        file_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Download:
        """Download a file's bytes. A result file is sent in base64, as by OpenAI; to `Accept: text/csv` as it
        is.
        """
        request = Request(
            "GET",
            filled("/v1/files/{file_id}/content", file_id=file_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.download(request)


class FineTuning:
    """The operations of `fine_tuning`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.jobs = FineTuningJobs(transport)
        self.checks = FineTuningChecks(transport)
        self.checkpoints = FineTuningCheckpoints(transport)


class ModelAliases:
    """The operations of `model_aliases`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.history = ModelAliasesHistory(transport)

    def list(
        self,
        *,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.ModelAliasObject]:
        """List the project's model aliases, newest first.

        after: The id of the last object of the page before this one.
        limit: The most objects to return.
        """
        request = Request(
            "GET",
            "/v1/model_aliases",
            query={
                "after": after,
                "limit": limit,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.ModelAliasObject, request)

    def create(
        self,
        *,
        name: str,
        model: str,
        candidate: Union[Omit, Optional[models.AliasCandidateParam]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ModelAliasObject:
        """Create a name that stands for a model and can be moved.

        name: Letters, digits, `.`, `_` and `-`, at most 64; neither a base nor an alias of one.
        model: A base or a tuned model that the project may call.
        """
        request = Request(
            "POST",
            "/v1/model_aliases",
            body={
                "name": name,
                "model": model,
                "candidate": candidate,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ModelAliasObject, request)

    def retrieve(
        self,
        name: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ModelAliasObject:
        """Get a model alias."""
        request = Request(
            "GET",
            filled("/v1/model_aliases/{name}", name=name),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ModelAliasObject, request)

    def update(
        self,
        name: str,
        *,
        model: Union[Omit, Optional[str]] = OMIT,
        candidate: Union[Omit, Optional[models.AliasCandidateParam]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ModelAliasObject:
        """Move a model alias, or begin, change or end its canary."""
        request = Request(
            "POST",
            filled("/v1/model_aliases/{name}", name=name),
            body={
                "model": model,
                "candidate": candidate,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ModelAliasObject, request)

    def delete(
        self,
        name: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ModelAliasDeleted:
        """Delete a model alias; the models that it stood for stay."""
        request = Request(
            "DELETE",
            filled("/v1/model_aliases/{name}", name=name),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ModelAliasDeleted, request)

    def promote(
        self,
        name: str,
        *,
        model: Union[Omit, Optional[str]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ModelAliasObject:
        """Move a model alias to a model, or to its candidate; a canary ends.

        model: The model to promote; without it, the candidate.
        """
        request = Request(
            "POST",
            filled("/v1/model_aliases/{name}/promote", name=name),
            body={
                "model": model,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ModelAliasObject, request)

    def rollback(
        self,
        name: str,
        *,
        current_model: Union[Omit, Optional[str]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ModelAliasObject:
        """Take the last move back: end the canary if there is one, else return to the model before.

        current_model: What the alias must stand for now, else nothing is done: makes it safe to send twice.
        """
        request = Request(
            "POST",
            filled("/v1/model_aliases/{name}/rollback", name=name),
            body={
                "current_model": current_model,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ModelAliasObject, request)


class ModelImports:
    """The operations of `model_imports`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.ModelImportObject]:
        """List the project's imports of models, newest first.

        after: The id of the last object of the page before this one.
        limit: The most objects to return.
        """
        request = Request(
            "GET",
            "/v1/model_imports",
            query={
                "after": after,
                "limit": limit,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.ModelImportObject, request)

    def retrieve(
        self,
        import_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ModelImportObject:
        """Get an import: its status, and the model's name or what is wrong with the adapter."""
        request = Request(
            "GET",
            filled("/v1/model_imports/{import_id}", import_id=import_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ModelImportObject, request)


class Models:
    """The operations of `models`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.ModelObject]:
        """List the models that the project may call: bases, then its own."""
        request = Request(
            "GET",
            "/v1/models",
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.ModelObject, request)

    def create(
        self,
        *,
        base: str,
        suffix: Union[Omit, str] = OMIT,
        file: Union[Omit, FileInput] = OMIT,
        file_id: Union[Omit, str] = OMIT,
        adapter_config: Union[Omit, FileInput] = OMIT,
        adapter_model: Union[Omit, FileInput] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ModelImportObject:
        """Import a LoRA adapter of one's own, as PEFT saves it; once the import has ended, it names the model.

        base: The base that the adapter was trained on.
        suffix: A part of the model's name.
        file: A zip archive of PEFT's adapter_config.json and adapter_model.safetensors.
        file_id: The id of such an archive that was uploaded before, instead of `file`.
        adapter_config: PEFT's adapter_config.json, with `adapter_model` instead of an archive.
        adapter_model: PEFT's adapter_model.safetensors.
        """
        request = Request(
            "POST",
            "/v1/models",
            form={
                "base": base,
                "suffix": suffix,
                "file_id": file_id,
            },
            files={
                "file": file,
                "adapter_config": adapter_config,
                "adapter_model": adapter_model,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ModelImportObject, request)

    def download(
        self,
        model: str,
        *,
        format: Union[Omit, Literal["peft", "merged"]] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Download:
        """Download a tuned model's artifact as a zip archive, whole or from a byte on.

        format: `peft`: the files that PEFT reads, and the manifest; `merged`: a folder that transformers
            loads, with what was learned in the base's own weights, which is made at the first request.
        """
        request = Request(
            "GET",
            filled("/v1/models/{model}/content", model=model),
            query={
                "format": format,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.download(request)

    def retrieve(
        self,
        model: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ModelObject:
        """Get one model."""
        request = Request(
            "GET",
            filled("/v1/models/{model}", model=model),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ModelObject, request)

    def delete(
        self,
        model: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ModelDeleted:
        """Delete one of the project's own fine-tuned models."""
        request = Request(
            "DELETE",
            filled("/v1/models/{model}", model=model),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ModelDeleted, request)


class Responses:
    """The operations of `responses`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.input_items = ResponsesInputItems(transport)

    def create(
        self,
        *,
        model: str,
        input: Union[
            Sequence[
                Union[
                    models.MessageItemParam,
                    models.FunctionCallItemParam,
                    models.FunctionCallOutputItemParam,
                    models.ReasoningItemParam,
                ]
            ],
            str,
        ],
        instructions: Union[Omit, Optional[str]] = OMIT,
        include: Union[Omit, Optional[Sequence[str]]] = OMIT,
        max_output_tokens: Union[Omit, Optional[int]] = OMIT,
        metadata: Union[Omit, Optional[Mapping[str, str]]] = OMIT,
        parallel_tool_calls: Union[Omit, Optional[bool]] = OMIT,
        reasoning: Union[Omit, Optional[models.ReasoningSettingsParam]] = OMIT,
        store: Union[Omit, Optional[bool]] = OMIT,
        stream_options: Union[Omit, Optional[models.StreamSettingsParam]] = OMIT,
        temperature: Union[Omit, Optional[float]] = OMIT,
        text: Union[Omit, Optional[models.TextSettingsInputParam]] = OMIT,
        tool_choice: Union[
            Omit,
            Optional[
                Union[Union[models.NamedFunctionParam, models.AllowedToolsParam], Literal["none", "auto", "required"]]
            ],
        ] = OMIT,
        tools: Union[Omit, Optional[Sequence[models.FunctionToolParam]]] = OMIT,
        top_logprobs: Union[Omit, Optional[int]] = OMIT,
        top_p: Union[Omit, Optional[float]] = OMIT,
        truncation: Union[Omit, Optional[Literal["disabled"]]] = OMIT,
        user: Union[Omit, Optional[str]] = OMIT,
        safety_identifier: Union[Omit, Optional[str]] = OMIT,
        max_tool_calls: Union[Omit, Optional[int]] = OMIT,
        prompt_cache_key: Union[Omit, Optional[str]] = OMIT,
        prompt_cache_retention: Union[Omit, Optional[Literal["in_memory", "24h"]]] = OMIT,
        prompt_cache_options: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        service_tier: Union[
            Omit, Optional[Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]]
        ] = OMIT,
        background: Union[Omit, Optional[Literal[False]]] = OMIT,
        previous_response_id: Union[Omit, None] = OMIT,
        conversation: Union[Omit, None] = OMIT,
        prompt: Union[Omit, None] = OMIT,
        moderation: Union[Omit, None] = OMIT,
        context_management: Union[Omit, None] = OMIT,
        access_programs: Union[Omit, None] = OMIT,
        image: Union[Omit, None] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.ResponseObject:
        """Generate the next output items of a conversation.

        model: A base, an alias of one, or a tuned model.
        instructions: A system message before `input`.
        store: Accepted; nothing is stored, and a header of the response says so.
        max_tool_calls: Accepted; it counts calls of tools that OpenAI runs.
        """
        request = Request(
            "POST",
            "/v1/responses",
            body={
                "model": model,
                "input": input,
                "instructions": instructions,
                "include": include,
                "max_output_tokens": max_output_tokens,
                "metadata": metadata,
                "parallel_tool_calls": parallel_tool_calls,
                "reasoning": reasoning,
                "store": store,
                "stream_options": stream_options,
                "temperature": temperature,
                "text": text,
                "tool_choice": tool_choice,
                "tools": tools,
                "top_logprobs": top_logprobs,
                "top_p": top_p,
                "truncation": truncation,
                "user": user,
                "safety_identifier": safety_identifier,
                "max_tool_calls": max_tool_calls,
                "prompt_cache_key": prompt_cache_key,
                "prompt_cache_retention": prompt_cache_retention,
                "prompt_cache_options": prompt_cache_options,
                "service_tier": service_tier,
                "background": background,
                "previous_response_id": previous_response_id,
                "conversation": conversation,
                "prompt": prompt,
                "moderation": moderation,
                "context_management": context_management,
                "access_programs": access_programs,
                "image": image,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.ResponseObject, request)

    def stream(
        self,
        *,
        model: str,
        input: Union[
            Sequence[
                Union[
                    models.MessageItemParam,
                    models.FunctionCallItemParam,
                    models.FunctionCallOutputItemParam,
                    models.ReasoningItemParam,
                ]
            ],
            str,
        ],
        instructions: Union[Omit, Optional[str]] = OMIT,
        include: Union[Omit, Optional[Sequence[str]]] = OMIT,
        max_output_tokens: Union[Omit, Optional[int]] = OMIT,
        metadata: Union[Omit, Optional[Mapping[str, str]]] = OMIT,
        parallel_tool_calls: Union[Omit, Optional[bool]] = OMIT,
        reasoning: Union[Omit, Optional[models.ReasoningSettingsParam]] = OMIT,
        store: Union[Omit, Optional[bool]] = OMIT,
        stream_options: Union[Omit, Optional[models.StreamSettingsParam]] = OMIT,
        temperature: Union[Omit, Optional[float]] = OMIT,
        text: Union[Omit, Optional[models.TextSettingsInputParam]] = OMIT,
        tool_choice: Union[
            Omit,
            Optional[
                Union[Union[models.NamedFunctionParam, models.AllowedToolsParam], Literal["none", "auto", "required"]]
            ],
        ] = OMIT,
        tools: Union[Omit, Optional[Sequence[models.FunctionToolParam]]] = OMIT,
        top_logprobs: Union[Omit, Optional[int]] = OMIT,
        top_p: Union[Omit, Optional[float]] = OMIT,
        truncation: Union[Omit, Optional[Literal["disabled"]]] = OMIT,
        user: Union[Omit, Optional[str]] = OMIT,
        safety_identifier: Union[Omit, Optional[str]] = OMIT,
        max_tool_calls: Union[Omit, Optional[int]] = OMIT,
        prompt_cache_key: Union[Omit, Optional[str]] = OMIT,
        prompt_cache_retention: Union[Omit, Optional[Literal["in_memory", "24h"]]] = OMIT,
        prompt_cache_options: Union[Omit, Optional[Mapping[str, Any]]] = OMIT,
        service_tier: Union[
            Omit, Optional[Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]]
        ] = OMIT,
        background: Union[Omit, Optional[Literal[False]]] = OMIT,
        previous_response_id: Union[Omit, None] = OMIT,
        conversation: Union[Omit, None] = OMIT,
        prompt: Union[Omit, None] = OMIT,
        moderation: Union[Omit, None] = OMIT,
        context_management: Union[Omit, None] = OMIT,
        access_programs: Union[Omit, None] = OMIT,
        image: Union[Omit, None] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Stream[JsonObject]:
        """Generate the next output items of a conversation.

        model: A base, an alias of one, or a tuned model.
        instructions: A system message before `input`.
        store: Accepted; nothing is stored, and a header of the response says so.
        max_tool_calls: Accepted; it counts calls of tools that OpenAI runs.
        """
        request = Request(
            "POST",
            "/v1/responses",
            body={
                "model": model,
                "input": input,
                "instructions": instructions,
                "include": include,
                "max_output_tokens": max_output_tokens,
                "metadata": metadata,
                "parallel_tool_calls": parallel_tool_calls,
                "reasoning": reasoning,
                "store": store,
                "stream_options": stream_options,
                "temperature": temperature,
                "text": text,
                "tool_choice": tool_choice,
                "tools": tools,
                "top_logprobs": top_logprobs,
                "top_p": top_p,
                "truncation": truncation,
                "user": user,
                "safety_identifier": safety_identifier,
                "max_tool_calls": max_tool_calls,
                "prompt_cache_key": prompt_cache_key,
                "prompt_cache_retention": prompt_cache_retention,
                "prompt_cache_options": prompt_cache_options,
                "service_tier": service_tier,
                "background": background,
                "previous_response_id": previous_response_id,
                "conversation": conversation,
                "prompt": prompt,
                "moderation": moderation,
                "context_management": context_management,
                "access_programs": access_programs,
                "image": image,
                "stream": True,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.stream(read_object, request, marked=False)

    def get(
        self,
        response_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Any:
        """Always a 404: responses are not stored."""
        request = Request(
            "GET",
            filled("/v1/responses/{response_id}", response_id=response_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.json(request)

    def delete(
        self,
        response_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Any:
        """Always a 404: responses are not stored."""
        request = Request(
            "DELETE",
            filled("/v1/responses/{response_id}", response_id=response_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.json(request)

    def cancel(
        self,
        response_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Any:
        """Always a 404: responses are not stored, and none is made in the background."""
        request = Request(
            "POST",
            filled("/v1/responses/{response_id}/cancel", response_id=response_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.json(request)


class Uploads:
    """The operations of `uploads`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.parts = UploadsParts(transport)

    def create(
        self,
        *,
        filename: str,
        purpose: Literal["fine-tune", "assistants", "batch", "user_data", "vision", "evals"],
        bytes: int,
        mime_type: str,
        expires_after: Union[Omit, Optional[models.FileExpirationAfterParam]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.UploadObject:
        """Create an upload, which takes parts for an hour."""
        request = Request(
            "POST",
            "/v1/uploads",
            body={
                "filename": filename,
                "purpose": purpose,
                "bytes": bytes,
                "mime_type": mime_type,
                "expires_after": expires_after,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.UploadObject, request)

    def complete(
        self,
        upload_id: str,
        *,
        part_ids: Sequence[str],
        md5: Union[Omit, Optional[str]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.UploadObject:
        """Make a file of the parts, in the order in which they are named. Parts that are not named are removed.

        part_ids: In the file's order.
        md5: Of the whole file, in hex; a wrong one is rejected.
        """
        request = Request(
            "POST",
            filled("/v1/uploads/{upload_id}/complete", upload_id=upload_id),
            body={
                "part_ids": part_ids,
                "md5": md5,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.UploadObject, request)

    def cancel(
        self,
        upload_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.UploadObject:
        """Cancel a pending upload and remove its parts."""
        request = Request(
            "POST",
            filled("/v1/uploads/{upload_id}/cancel", upload_id=upload_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.UploadObject, request)


class WebhookEndpoints:
    """The operations of `webhook_endpoints`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        after: Union[Omit, Optional[str]] = OMIT,
        limit: Union[Omit, int] = OMIT,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Page[models.WebhookEndpointObject]:
        """List the project's webhook endpoints, newest first.

        after: The id of the last object of the page before this one.
        limit: The most objects to return.
        """
        request = Request(
            "GET",
            "/v1/webhook_endpoints",
            query={
                "after": after,
                "limit": limit,
            },
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.page(models.WebhookEndpointObject, request)

    def create(
        self,
        *,
        event_types: Sequence[str],
        name: str,
        url: str,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.WebhookEndpointWithSecret:
        """Create an endpoint that events are sent to; the response alone has its secret.

        event_types: What to send: fine_tuning.job.succeeded, fine_tuning.job.failed,
            fine_tuning.job.cancelled, fine_tuning.job.paused, fine_tuning.check.completed.
        url: An https URL; its host must have public addresses only.
        """
        request = Request(
            "POST",
            "/v1/webhook_endpoints",
            body={
                "event_types": event_types,
                "name": name,
                "url": url,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.WebhookEndpointWithSecret, request)

    def retrieve(
        self,
        webhook_endpoint_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.WebhookEndpointObject:
        """Get a webhook endpoint."""
        request = Request(
            "GET",
            filled("/v1/webhook_endpoints/{webhook_endpoint_id}", webhook_endpoint_id=webhook_endpoint_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.WebhookEndpointObject, request)

    def update(
        self,
        webhook_endpoint_id: str,
        *,
        event_types: Union[Omit, Optional[Sequence[str]]] = OMIT,
        name: Union[Omit, Optional[str]] = OMIT,
        url: Union[Omit, Optional[str]] = OMIT,
        status: Union[Omit, Optional[Literal["enabled", "disabled"]]] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.WebhookEndpointObject:
        """Change a webhook endpoint, or enable one that was disabled.

        status: `enabled` lets a disabled endpoint receive events again.
        """
        request = Request(
            "POST",
            filled("/v1/webhook_endpoints/{webhook_endpoint_id}", webhook_endpoint_id=webhook_endpoint_id),
            body={
                "event_types": event_types,
                "name": name,
                "url": url,
                "status": status,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.WebhookEndpointObject, request)

    def delete(
        self,
        webhook_endpoint_id: str,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.WebhookEndpointDeleted:
        """Delete a webhook endpoint; nothing more is sent to it."""
        request = Request(
            "DELETE",
            filled("/v1/webhook_endpoints/{webhook_endpoint_id}", webhook_endpoint_id=webhook_endpoint_id),
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.WebhookEndpointDeleted, request)

    def rotate(
        self,
        webhook_endpoint_id: str,
        *,
        keep_old_secret_active_for_24_hours: Union[Omit, bool] = OMIT,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.WebhookEndpointWithSecret:
        """Replace the secret of a webhook endpoint; the response alone has the new one.

        keep_old_secret_active_for_24_hours: Sign with both secrets for a day, so that receivers can change
            over.
        """
        request = Request(
            "POST",
            filled(
                "/v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret", webhook_endpoint_id=webhook_endpoint_id
            ),
            body={
                "keep_old_secret_active_for_24_hours": keep_old_secret_active_for_24_hours,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.WebhookEndpointWithSecret, request)

    def test(
        self,
        webhook_endpoint_id: str,
        *,
        event_type: str,
        extra_body: Optional[Mapping[str, Any]] = None,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.WebhookEndpointTestResult:
        """Send a sample event to a webhook endpoint, and say what it responded."""
        request = Request(
            "POST",
            filled("/v1/webhook_endpoints/{webhook_endpoint_id}/test", webhook_endpoint_id=webhook_endpoint_id),
            body={
                "event_type": event_type,
            },
            extra_body=extra_body,
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.WebhookEndpointTestResult, request)


class WebhookEventTypes:
    """The operations of `webhook_event_types`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> Any:
        """List the events that are sent."""
        request = Request(
            "GET",
            "/v1/webhook_event_types",
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.json(request)


class Api:
    """Every operation of the service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.files = Files(transport)
        self.uploads = Uploads(transport)
        self.fine_tuning = FineTuning(transport)
        self.models = Models(transport)
        self.model_imports = ModelImports(transport)
        self.model_aliases = ModelAliases(transport)
        self.webhook_endpoints = WebhookEndpoints(transport)
        self.webhook_event_types = WebhookEventTypes(transport)
        self.api_keys = ApiKeys(transport)
        self.completions = Completions(transport)
        self.chat = Chat(transport)
        self.classifications = Classifications(transport)
        self.embeddings = Embeddings(transport)
        self.responses = Responses(transport)

    def root(
        self,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.Root:
        """Say where the API is."""
        request = Request(
            "GET",
            "/",
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.Root, request)

    def livez(
        self,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.Alive:
        """Report that the process responds. Nothing else is looked at: a restart would not help."""
        request = Request(
            "GET",
            "/livez",
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.Alive, request)

    def readyz(
        self,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.Ready:
        """Report whether requests should be sent here: 200 if the database takes writes, else 503."""
        request = Request(
            "GET",
            "/readyz",
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.Ready, request)

    def health(
        self,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> models.Health:
        """Report whether the service works: 200 if its database takes writes, else 503."""
        request = Request(
            "GET",
            "/health",
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.object(models.Health, request)

    def metrics(
        self,
        *,
        extra_headers: Optional[Mapping[str, str]] = None,
        timeout_seconds: Optional[float] = None,
    ) -> str:
        """Report what this process has done, and the jobs of the installation, to Prometheus; needs an admin's
        key.
        """
        request = Request(
            "GET",
            "/metrics",
            extra_headers=extra_headers,
            timeout_seconds=timeout_seconds,
        )
        return self._transport.text(request)
