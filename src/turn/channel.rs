//! ChannelBind (RFC 8656 §12.2): a number that stands for a peer's address, so that packets need four bytes more, not
//! thirty-six.

use std::ops::RangeInclusive;
use std::time::Instant;

use stun_types::message::MessageClass;
use turn_types::attribute::{ChannelNumber, XorPeerAddress};

use super::allocation::MAX_CHANNELS;
use super::answer::{self, Refusal};
use super::authentication::Account;
use super::request::Request;
use super::{Ports, Route, Turn};

/// RFC 8656 §12 ends at 0x4fff, RFC 5766 §11 here: clients that know only the older one choose from all of them, and no
/// packet of DTLS or media begins like these.
const CHANNELS: RangeInclusive<u16> = 0x4000..=0x7fff;

impl Turn {
    pub(super) fn channel_bind<'a>(
        &mut self,
        now: Instant,
        route: Route,
        request: &'a Request<'a>,
        account: &Account<'_>,
        ports: &mut impl Ports,
    ) -> Result<(), Refusal> {
        let id = self.own_allocation(now, route, account, ports)?;
        let number = request.required::<ChannelNumber>()?.channel();
        let peer = request.required::<XorPeerAddress>()?.addr(request.transaction());
        if !CHANNELS.contains(&number) {
            return Err(Refusal::BadRequest);
        }
        let allocation = self.allocations.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        let (by_number, by_peer) = (allocation.channel(number, now), allocation.channel_to(peer, now));
        if by_number.is_some_and(|bound| bound.peer != peer) || by_peer.is_some_and(|bound| bound.number != number) {
            return Err(Refusal::BadRequest);
        }
        let is_new = by_number.is_none();
        if is_new && allocation.channels.iter().filter(|channel| channel.expires > now).count() >= MAX_CHANNELS {
            return Err(Refusal::InsufficientCapacity);
        }
        self.may_be_permitted(id, peer.ip(), now)?;
        let way = self.way_to(peer).ok_or(Refusal::Forbidden)?;
        self.permit(id, &[peer.ip()], now, ports)?;
        let allocation = self.allocations.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        allocation.bind(number, peer, way, now);
        answer::write(&mut self.to_clients, route, request, MessageClass::Success, Some(&account.key), &[]);
        Ok(())
    }
}
