//! placeholder
/// placeholder
pub struct TcpConnector;
