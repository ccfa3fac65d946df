//! The rooms' plain data ↔ the LiveKit protobuf. Pure functions; used by [`Session`](super::session::Session) and the server API.
//!
//! Deprecated fields (`simulcast`, `layers`, `stereo`, `disable_dtx`) are filled beside their successors: clients of
//! the last years read one or the other.
#![allow(deprecated)]

use livekit_protocol as proto;
use proto::request_response::Reason;

use crate::sfu::{
    Codec, ConnectionQuality, Description, Encryption, LayerInfo, LeaveReason, LineState, MediaKind, NewTrack,
    ParticipantInfo, ParticipantState, Permissions, Quality, RoomInfo, Sid, Speaker, StreamState, TrackInfo,
    TrackSettings, TrackSource,
};

/// What a publisher may use, the video we prefer first: a client whose choice is missing takes the first video entry.
/// Clients leave `audio/red` out by themselves when frames are encrypted.
pub const PUBLISH_CODECS: [Codec; 6] = [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1, Codec::Opus, Codec::Red];

/// The text fields of a track, bytes each: they go to everyone in the room. Apps put small JSON into `name`.
const TRACK_TEXT_MAX: usize = 1024;

/// Simulcast layers of one track; more than low, medium, high has no meaning.
const LAYERS_MAX: usize = 3;

/// `AudioTrackFeature` has seven values; some room for new ones.
const AUDIO_FEATURES_MAX: usize = 16;

/// The media stream of camera and microphone, and that of a screen and its sound: receivers synchronise within a stream.
const CAMERA_STREAM: &str = "camera";
const SCREEN_STREAM: &str = "screen";

// --- rooms → protobuf ---

pub fn participant(info: &ParticipantInfo) -> proto::ParticipantInfo {
    let mut tracks: Vec<_> = info.tracks.iter().map(track).collect();
    // A receiver that decrypts frames fails for good on a track without a MIME type.
    tracks.retain(|track| !track.mime_type.is_empty());
    for track in &mut tracks {
        track.version =
            Some(proto::TimedVersion { unix_micro: info.joined_at_ms as i64 * 1000, ticks: info.version as i32 });
    }
    proto::ParticipantInfo {
        sid: info.sid.to_string(),
        identity: info.identity.clone(),
        state: state(info.state) as i32,
        tracks,
        metadata: info.metadata.clone(),
        joined_at: (info.joined_at_ms / 1000) as i64,
        joined_at_ms: info.joined_at_ms as i64,
        name: info.name.clone(),
        version: info.version,
        permission: Some(permission(&info.permissions)),
        is_publisher: info.is_publisher,
        kind: proto::participant_info::Kind::Standard as i32,
        attributes: info.attributes.clone().into_iter().collect(),
        disconnect_reason: info.leave_reason.map_or(proto::DisconnectReason::UnknownReason, disconnect_reason) as i32,
        client_protocol: info.client_protocol,
        ..Default::default()
    }
}

fn state(state: ParticipantState) -> proto::participant_info::State {
    match state {
        ParticipantState::Joined => proto::participant_info::State::Joined,
        ParticipantState::Active => proto::participant_info::State::Active,
        ParticipantState::Disconnected => proto::participant_info::State::Disconnected,
    }
}

/// Without it in its own `ParticipantInfo`, livekit-client refuses to publish.
pub fn permission(permissions: &Permissions) -> proto::ParticipantPermission {
    proto::ParticipantPermission {
        can_subscribe: permissions.can_subscribe,
        can_publish: permissions.can_publish,
        can_publish_data: permissions.can_publish_data,
        can_publish_sources: permissions.can_publish_sources.iter().map(|&s| source(s) as i32).collect(),
        can_update_metadata: permissions.can_update_metadata,
        hidden: permissions.hidden,
        ..Default::default()
    }
}

/// A published track, or one that was only announced: then the MIME type is empty when the request named no codec.
pub fn track(info: &TrackInfo) -> proto::TrackInfo {
    let announced = &info.announced;
    let kind = announced.kind;
    let codec = info.codec.or(announced.codec).or((kind == MediaKind::Audio).then_some(Codec::Opus));
    let mime_type = codec.map_or(String::new(), |codec| codec.mime().to_owned());
    let mid = info.mid.clone().unwrap_or_default();
    let layers = layers(&info.layers);
    let cid = announced.codec_cids.first().unwrap_or(&announced.cid).clone();
    let mut audio_features = announced.audio_features.clone();
    for (set, feature) in [
        (announced.stereo, proto::AudioTrackFeature::TfStereo as i32),
        (announced.disable_dtx, proto::AudioTrackFeature::TfNoDtx as i32),
    ] {
        if set && kind == MediaKind::Audio && !audio_features.contains(&feature) {
            audio_features.push(feature);
        }
    }
    proto::TrackInfo {
        sid: info.sid.to_string(),
        r#type: match kind {
            MediaKind::Audio => proto::TrackType::Audio,
            MediaKind::Video => proto::TrackType::Video,
        } as i32,
        name: announced.name.clone(),
        muted: info.muted,
        width: announced.width,
        height: announced.height,
        simulcast: info.simulcast,
        disable_dtx: announced.disable_dtx,
        source: source(announced.source) as i32,
        layers: layers.clone(),
        mime_type: mime_type.clone(),
        mid: mid.clone(),
        codecs: vec![proto::SimulcastCodecInfo {
            mime_type,
            mid,
            cid,
            layers,
            video_layer_mode: match kind {
                MediaKind::Audio => proto::video_layer::Mode::Unused,
                MediaKind::Video if info.scalable => proto::video_layer::Mode::MultipleSpatialLayersPerStream,
                MediaKind::Video => proto::video_layer::Mode::OneSpatialLayerPerStream,
            } as i32,
            ..Default::default()
        }],
        stereo: announced.stereo,
        disable_red: announced.disable_red,
        encryption: match announced.encryption {
            Encryption::None => proto::encryption::Type::None,
            Encryption::Gcm => proto::encryption::Type::Gcm,
            Encryption::Custom => proto::encryption::Type::Custom,
        } as i32,
        stream: if announced.stream.is_empty() { default_stream(announced.source) } else { &announced.stream }
            .to_owned(),
        audio_features,
        ..Default::default()
    }
}

fn default_stream(source: TrackSource) -> &'static str {
    match source {
        TrackSource::Camera | TrackSource::Microphone => CAMERA_STREAM,
        TrackSource::ScreenShare | TrackSource::ScreenShareAudio => SCREEN_STREAM,
        TrackSource::Unknown => "",
    }
}

/// Sorted, lowest first.
fn layers(layers: &[LayerInfo]) -> Vec<proto::VideoLayer> {
    let mut layers: Vec<_> = layers.iter().collect();
    layers.sort_by_key(|layer| layer.quality);
    let layer = |(spatial_layer, layer): (usize, &LayerInfo)| proto::VideoLayer {
        quality: match layer.quality {
            Quality::Low => proto::VideoQuality::Low,
            Quality::Medium => proto::VideoQuality::Medium,
            Quality::High => proto::VideoQuality::High,
        } as i32,
        width: layer.width,
        height: layer.height,
        bitrate: layer.bitrate,
        spatial_layer: spatial_layer as i32,
        rid: layer.rid.clone().unwrap_or_default(),
        ..Default::default()
    };
    layers.into_iter().enumerate().map(layer).collect()
}

fn source(source: TrackSource) -> proto::TrackSource {
    match source {
        TrackSource::Unknown => proto::TrackSource::Unknown,
        TrackSource::Camera => proto::TrackSource::Camera,
        TrackSource::Microphone => proto::TrackSource::Microphone,
        TrackSource::ScreenShare => proto::TrackSource::ScreenShare,
        TrackSource::ScreenShareAudio => proto::TrackSource::ScreenShareAudio,
    }
}

pub fn room(info: &RoomInfo) -> proto::Room {
    proto::Room {
        sid: info.sid.to_string(),
        name: info.name.clone(),
        empty_timeout: info.empty_timeout,
        departure_timeout: info.departure_timeout,
        max_participants: info.max_participants,
        creation_time: (info.created_at_ms / 1000) as i64,
        creation_time_ms: info.created_at_ms as i64,
        enabled_codecs: publish_codecs(),
        metadata: info.metadata.clone(),
        num_participants: info.num_participants,
        num_publishers: info.num_publishers,
        ..Default::default()
    }
}

pub fn publish_codecs() -> Vec<proto::Codec> {
    PUBLISH_CODECS
        .into_iter()
        .map(|codec| proto::Codec { mime: codec.mime().to_owned(), ..Default::default() })
        .collect()
}

/// `r#type` is `offer` or `answer`.
pub fn description(r#type: &str, description: Description) -> proto::SessionDescription {
    proto::SessionDescription {
        r#type: r#type.to_owned(),
        sdp: description.sdp,
        id: description.id,
        mid_to_track_id: description.mid_to_track.into_iter().map(|(mid, track)| (mid, track.to_string())).collect(),
    }
}

pub fn speaker(speaker: &Speaker) -> proto::SpeakerInfo {
    proto::SpeakerInfo { sid: speaker.sid.to_string(), level: speaker.level, active: speaker.active }
}

pub fn stream_state(state: &StreamState) -> proto::StreamStateInfo {
    proto::StreamStateInfo {
        participant_sid: state.participant.to_string(),
        track_sid: state.track.to_string(),
        state: if state.paused { proto::StreamState::Paused } else { proto::StreamState::Active } as i32,
    }
}

/// `knows_lost`: the client has a name for a line that is dead.
pub fn line_state(state: &LineState, knows_lost: bool) -> proto::ConnectionQualityInfo {
    let quality = match state.quality {
        ConnectionQuality::Excellent => proto::ConnectionQuality::Excellent,
        ConnectionQuality::Good => proto::ConnectionQuality::Good,
        ConnectionQuality::Lost if knows_lost => proto::ConnectionQuality::Lost,
        ConnectionQuality::Poor | ConnectionQuality::Lost => proto::ConnectionQuality::Poor,
    };
    proto::ConnectionQualityInfo {
        participant_sid: state.participant.to_string(),
        quality: quality as i32,
        score: state.opinion,
    }
}

/// Every quality is named, since a client leaves those alone that are not. One codec: to name another would ask for the
/// track to be published in that one, too.
pub fn subscribed_quality(
    track: &Sid,
    codec: Option<Codec>,
    highest: Option<Quality>,
) -> proto::SubscribedQualityUpdate {
    let qualities: Vec<_> = [
        (proto::VideoQuality::Low, Quality::Low),
        (proto::VideoQuality::Medium, Quality::Medium),
        (proto::VideoQuality::High, Quality::High),
    ]
    .into_iter()
    .map(|(name, quality)| proto::SubscribedQuality { quality: name as i32, enabled: Some(quality) <= highest })
    .collect();
    let name = |codec: Codec| codec.mime().trim_start_matches("video/").to_ascii_lowercase();
    let subscribed_codecs = codec
        .map(|codec| proto::SubscribedCodec { codec: name(codec), qualities: qualities.clone() })
        .into_iter()
        .collect();
    // The second list is what clients read that know of one codec only.
    proto::SubscribedQualityUpdate { track_sid: track.to_string(), subscribed_qualities: qualities, subscribed_codecs }
}

pub fn disconnect_reason(reason: LeaveReason) -> proto::DisconnectReason {
    match reason {
        LeaveReason::ClientInitiated => proto::DisconnectReason::ClientInitiated,
        LeaveReason::DuplicateIdentity => proto::DisconnectReason::DuplicateIdentity,
        LeaveReason::ServerShutdown | LeaveReason::ServerFault => proto::DisconnectReason::ServerShutdown,
        LeaveReason::Removed => proto::DisconnectReason::ParticipantRemoved,
        LeaveReason::RoomDeleted => proto::DisconnectReason::RoomDeleted,
        LeaveReason::StateMismatch => proto::DisconnectReason::StateMismatch,
        LeaveReason::JoinTimeout => proto::DisconnectReason::JoinFailure,
        LeaveReason::SignalClosed => proto::DisconnectReason::SignalClose,
        LeaveReason::ConnectionTimeout => proto::DisconnectReason::ConnectionTimeout,
    }
}

/// What the client shall do next. Reconnecting means a fresh join with its latest token.
///
/// A shutdown asks for it too: the client retries for half a minute, so a restart costs a call seconds, not its end.
pub fn leave(reason: LeaveReason) -> proto::LeaveRequest {
    let action = match reason {
        LeaveReason::ServerShutdown
        | LeaveReason::ServerFault
        | LeaveReason::StateMismatch
        | LeaveReason::ConnectionTimeout => proto::leave_request::Action::Reconnect,
        LeaveReason::ClientInitiated
        | LeaveReason::DuplicateIdentity
        | LeaveReason::Removed
        | LeaveReason::RoomDeleted
        | LeaveReason::JoinTimeout
        | LeaveReason::SignalClosed => proto::leave_request::Action::Disconnect,
    };
    proto::LeaveRequest {
        // What clients below protocol 13 read instead of the action.
        can_reconnect: action == proto::leave_request::Action::Reconnect,
        reason: disconnect_reason(reason) as i32,
        action: action as i32,
        regions: None,
    }
}

// --- protobuf → rooms ---

/// What `add_track` asks for; the reason of the `request_response` when it cannot be had.
pub fn new_track(request: &proto::AddTrackRequest) -> Result<NewTrack, Reason> {
    let kind = match proto::TrackType::try_from(request.r#type) {
        Ok(proto::TrackType::Audio) => MediaKind::Audio,
        Ok(proto::TrackType::Video) => MediaKind::Video,
        Ok(proto::TrackType::Data) | Err(_) => return Err(Reason::UnsupportedType),
    };
    let codecs = &request.simulcast_codecs;
    let texts = [&request.cid, &request.name, &request.stream].into_iter().chain(codecs.iter().map(|codec| &codec.cid));
    if texts.clone().any(|text| text.len() > TRACK_TEXT_MAX) || codecs.len() > PUBLISH_CODECS.len() + LAYERS_MAX {
        return Err(Reason::LimitExceeded);
    }
    if request.cid.is_empty() {
        return Err(Reason::InvalidRequest);
    }
    let codec = match kind {
        MediaKind::Audio => Some(Codec::Opus),
        // The reply carries what we chose: the client then switches to it.
        MediaKind::Video => codecs.first().map(|first| {
            Codec::from_mime(&first.codec).filter(|codec| codec.kind() == kind).unwrap_or(PUBLISH_CODECS[0])
        }),
    };
    let layers = match codecs.first() {
        Some(first) if request.layers.is_empty() => &first.layers,
        _ => &request.layers,
    };
    let feature = |feature: proto::AudioTrackFeature| request.audio_features.contains(&(feature as i32));
    Ok(NewTrack {
        cid: request.cid.clone(),
        codec_cids: codecs.iter().map(|codec| codec.cid.clone()).filter(|cid| !cid.is_empty()).collect(),
        kind,
        source: track_source(request.source),
        name: request.name.clone(),
        muted: request.muted,
        width: if kind == MediaKind::Video { request.width } else { 0 },
        height: if kind == MediaKind::Video { request.height } else { 0 },
        layers: if kind == MediaKind::Video { new_layers(layers) } else { Vec::new() },
        codec,
        encryption: match proto::encryption::Type::try_from(request.encryption) {
            Ok(proto::encryption::Type::None) => Encryption::None,
            Ok(proto::encryption::Type::Gcm) => Encryption::Gcm,
            // A scheme newer than we are: certainly not clear text.
            Ok(proto::encryption::Type::Custom) | Err(_) => Encryption::Custom,
        },
        stereo: request.stereo || feature(proto::AudioTrackFeature::TfStereo),
        disable_dtx: request.disable_dtx || feature(proto::AudioTrackFeature::TfNoDtx),
        disable_red: request.disable_red,
        stream: request.stream.clone(),
        audio_features: request.audio_features.iter().copied().take(AUDIO_FEATURES_MAX).collect(),
    })
}

/// One per quality, lowest first; what is no layer is left out.
fn new_layers(layers: &[proto::VideoLayer]) -> Vec<LayerInfo> {
    let mut layers: Vec<LayerInfo> = layers
        .iter()
        .filter_map(|layer| {
            Some(LayerInfo {
                quality: quality(layer.quality)?,
                width: layer.width,
                height: layer.height,
                bitrate: layer.bitrate,
                rid: None,
            })
        })
        .take(LAYERS_MAX)
        .collect();
    layers.sort_by_key(|layer| layer.quality);
    layers.dedup_by_key(|layer| layer.quality);
    layers
}

/// `None` for OFF and for what we do not know.
fn quality(number: i32) -> Option<Quality> {
    match proto::VideoQuality::try_from(number) {
        Ok(proto::VideoQuality::Low) => Some(Quality::Low),
        Ok(proto::VideoQuality::Medium) => Some(Quality::Medium),
        Ok(proto::VideoQuality::High) => Some(Quality::High),
        Ok(proto::VideoQuality::Off) | Err(_) => None,
    }
}

fn track_source(number: i32) -> TrackSource {
    match proto::TrackSource::try_from(number) {
        Ok(proto::TrackSource::Camera) => TrackSource::Camera,
        Ok(proto::TrackSource::Microphone) => TrackSource::Microphone,
        Ok(proto::TrackSource::ScreenShare) => TrackSource::ScreenShare,
        Ok(proto::TrackSource::ScreenShareAudio) => TrackSource::ScreenShareAudio,
        Ok(proto::TrackSource::Unknown) | Err(_) => TrackSource::Unknown,
    }
}

pub fn track_settings(request: &proto::UpdateTrackSettings) -> TrackSettings {
    TrackSettings {
        disabled: request.disabled || request.quality == proto::VideoQuality::Off as i32,
        quality: quality(request.quality).unwrap_or(Quality::High),
        width: request.width,
        height: request.height,
        fps: request.fps,
        priority: request.priority,
    }
}

pub fn sid(text: &str) -> Sid {
    Sid(text.into())
}
